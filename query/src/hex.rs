//! Bytes as hexadecimal digits: how digests are shown and named.

use crate::intake::Digest;

/// Two lower-case digits per byte.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
    }
    text
}

/// The digest that is shown so; none when it is not one.
pub fn digest(text: &str) -> Option<Digest> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_goes_round_and_nothing_else_is_one() {
        let known: Digest = std::array::from_fn(|at| u8::try_from(at).unwrap_or(0) * 17);
        assert_eq!(digest(&encode(&known)), Some(known));
        assert_eq!(digest(&encode(&known).to_uppercase()), Some(known));
        for text in ["", "00", "0g", "é", &"0".repeat(31), &"0".repeat(33)] {
            assert_eq!(digest(text), None, "{text:?}");
        }
    }
}
