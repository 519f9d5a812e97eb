//! The version gate (rules R9, R10): what becomes of an event, given what is known of its order.
//!
//! An order's events are numbered 1, 2, 3 …: the next one is applied, an earlier one is compared with what was
//! applied, a later one waits. Nothing is skipped, and nothing but the order itself is held up.

use domain::Version;

use crate::intake::Digest;

/// Why an event waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// An earlier event has not arrived.
    Hole,
    /// This program is too old for it, or for one before it.
    Newer,
    /// It contradicts another event of the same version, or follows such a contradiction.
    Fork,
}

impl Cause {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hole => "hole",
            Self::Newer => "newer",
            Self::Fork => "fork",
        }
    }

    /// The cause of that name, as [`Cause::as_str`] prints it.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Hole, Self::Newer, Self::Fork].into_iter().find(|cause| cause.as_str() == name)
    }
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Apply,
    /// It is applied, or waits, already.
    Duplicate,
    /// It waits.
    Park(Cause),
    /// It tells the published fields of a known order differently.
    Contradiction,
}

/// What the gate needs to know of an order. The waiting events are those of this order alone.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The last applied version; zero before the first.
    pub last: Version,
    /// The waiting events: version, digest and cause, in version order.
    pub waiting: &'a [(Version, Digest, Cause)],
    /// The events that an operator discarded: they are known, and neither applied nor waited with.
    pub discarded: &'a [(Version, Digest)],
}

impl Standing<'_> {
    fn forked(&self) -> bool {
        self.waiting.iter().any(|(_version, _digest, cause)| *cause == Cause::Fork)
    }

    fn waits(&self, version: Version, digest: Digest) -> bool {
        self.waiting.iter().any(|(waiting, known, _cause)| (*waiting, *known) == (version, digest))
    }

    /// Judges an event of the log. `applied` is the digest of the applied event of that version; `understood` is
    /// false for an event of a newer release.
    pub fn judge(&self, version: Version, digest: Digest, applied: Option<Digest>, understood: bool) -> Verdict {
        let known = self.waits(version, digest) || self.discarded.contains(&(version, digest));
        if version <= self.last && applied == Some(digest) || known {
            return Verdict::Duplicate;
        }
        let contradicted = self.waiting.iter().any(|(waiting, _digest, _cause)| *waiting == version);
        if version <= self.last || contradicted || self.forked() {
            return Verdict::Park(Cause::Fork);
        }
        if !understood {
            return Verdict::Park(Cause::Newer);
        }
        if version == self.last.next() {
            return Verdict::Apply;
        }
        let behind_newer =
            self.waiting.iter().any(|(waiting, _digest, cause)| *waiting < version && *cause == Cause::Newer);
        Verdict::Park(if behind_newer { Cause::Newer } else { Cause::Hole })
    }

    /// Judges a message of the six published fields alone, which is always version 1. `agrees` tells whether it
    /// agrees with the applied version 1; none when that is not understood.
    pub fn judge_published(&self, digest: Digest, agrees: Option<bool>) -> Verdict {
        if self.discarded.contains(&(Version::FIRST, digest)) {
            return Verdict::Duplicate;
        }
        if self.last >= Version::FIRST {
            return match agrees {
                Some(true) => Verdict::Duplicate,
                Some(false) => Verdict::Contradiction,
                None => Verdict::Park(Cause::Newer),
            };
        }
        if self.waits(Version::FIRST, digest) {
            return Verdict::Duplicate;
        }
        let first = self.waiting.iter().find(|(version, _digest, _cause)| *version == Version::FIRST);
        match first {
            Some((_version, _digest, cause)) => Verdict::Park(*cause),
            None if self.forked() => Verdict::Park(Cause::Fork),
            None => Verdict::Apply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = [1; 16];
    const B: Digest = [2; 16];

    fn judge(last: u32, waiting: &[(Version, Digest, Cause)], version: u32, applied: Option<Digest>) -> Verdict {
        Standing { last: Version(last), waiting, discarded: &[] }.judge(Version(version), A, applied, true)
    }

    #[test]
    fn the_next_is_applied_a_repeat_dropped_and_a_later_one_waits() {
        assert_eq!(judge(0, &[], 1, None), Verdict::Apply);
        assert_eq!(judge(2, &[], 3, None), Verdict::Apply);
        assert_eq!(judge(2, &[], 2, Some(A)), Verdict::Duplicate);
        assert_eq!(judge(2, &[], 4, None), Verdict::Park(Cause::Hole));
        assert_eq!(judge(2, &[(Version(4), A, Cause::Hole)], 4, None), Verdict::Duplicate);
    }

    #[test]
    fn a_contradiction_is_a_fork_and_stops_the_order() {
        assert_eq!(judge(2, &[], 2, Some(B)), Verdict::Park(Cause::Fork));
        assert_eq!(judge(2, &[], 1, None), Verdict::Park(Cause::Fork));
        assert_eq!(judge(2, &[(Version(2), B, Cause::Fork)], 3, None), Verdict::Park(Cause::Fork));
        assert_eq!(judge(2, &[(Version(2), B, Cause::Fork)], 1, Some(A)), Verdict::Duplicate);
        assert_eq!(judge(2, &[(Version(4), B, Cause::Hole)], 4, None), Verdict::Park(Cause::Fork));
    }

    #[test]
    fn what_is_too_new_waits_and_so_does_what_follows_it() {
        let standing = Standing { last: Version(1), waiting: &[], discarded: &[] };
        assert_eq!(standing.judge(Version(2), A, None, false), Verdict::Park(Cause::Newer));
        assert_eq!(judge(1, &[(Version(2), B, Cause::Newer)], 3, None), Verdict::Park(Cause::Newer));
        assert_eq!(judge(1, &[(Version(3), B, Cause::Newer)], 2, None), Verdict::Apply);
    }

    #[test]
    fn the_published_fields_are_never_a_fork() {
        let judge = |last, waiting: &[_], agrees| {
            Standing { last: Version(last), waiting, discarded: &[] }.judge_published(A, agrees)
        };
        assert_eq!(judge(0, &[], None), Verdict::Apply);
        assert_eq!(judge(3, &[], Some(true)), Verdict::Duplicate);
        assert_eq!(judge(3, &[], Some(false)), Verdict::Contradiction);
        assert_eq!(judge(0, &[(Version(1), B, Cause::Newer)], None), Verdict::Park(Cause::Newer));
    }

    #[test]
    fn what_was_discarded_is_known_and_its_place_stays_open() {
        let standing = Standing { last: Version(1), waiting: &[], discarded: &[(Version(2), A), (Version(1), A)] };
        assert_eq!(standing.judge(Version(2), A, None, true), Verdict::Duplicate);
        assert_eq!(standing.judge(Version(2), B, None, true), Verdict::Apply);
        assert_eq!(standing.judge(Version(3), A, None, true), Verdict::Park(Cause::Hole));
        assert_eq!(standing.judge_published(A, Some(false)), Verdict::Duplicate);
    }
}
