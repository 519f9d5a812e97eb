//! Rows of figures, and how they are shown.

use serde::Serialize;

/// One measured path.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) path: &'static str,
    /// Our figure.
    pub(crate) ours: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What the machine allows, or what ours is compared with.
    pub(crate) limit: f64,
    /// What that is.
    pub(crate) limit_name: &'static str,
    /// The naive design.
    pub(crate) naive: f64,
    /// Ours over whatever the goal compares with.
    pub(crate) ratio: f64,
    /// The goal in words.
    pub(crate) goal: &'static str,
    /// Whether it is reached.
    pub(crate) met: bool,
}

/// The middle of several rounds.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// A percentile, in milliseconds, of durations in seconds.
pub(crate) fn percentile_ms(seconds: &mut [f64], percent: usize) -> f64 {
    seconds.sort_by(f64::total_cmp);
    let at = seconds.len().saturating_sub(1) * percent / 100;
    seconds.get(at).copied().unwrap_or_default() * 1000.0
}

/// For people.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<34} {:>10} {:<6} {:>10} {:>10} {:>7}  {:<4} {}\n",
        "path", "ours", "unit", "limit", "naive", "ratio", "met", "goal (limit)"
    );
    for row in rows {
        text += &format!(
            "{:<34} {:>10.1} {:<6} {:>10.1} {:>10.1} {:>7.2}  {:<4} {} ({})\n",
            row.path,
            row.ours,
            row.unit,
            row.limit,
            row.naive,
            row.ratio,
            if row.met { "yes" } else { "NO" },
            row.goal,
            row.limit_name
        );
    }
    text
}
