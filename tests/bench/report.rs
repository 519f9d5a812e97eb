//! Rows of figures, and how they are shown.

use serde::Serialize;

use crate::process::Cost;

/// One measured path.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) path: String,
    /// Our figure.
    pub(crate) ours: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What the machine allows, or what ours is compared with; zero when there is none.
    pub(crate) limit: f64,
    /// What that is.
    pub(crate) limit_name: &'static str,
    /// The naive design; zero when there is none.
    pub(crate) naive: f64,
    /// Ours over whatever the goal compares with.
    pub(crate) ratio: f64,
    /// The goal in words.
    pub(crate) goal: &'static str,
    /// Whether it is reached.
    pub(crate) met: bool,
    /// Our process's share of all cores meanwhile, in per cent; zero where it was not asked.
    pub(crate) cpu_percent: f64,
    /// The most memory that our process had, in MiB; zero where it was not asked.
    pub(crate) memory_mib: f64,
}

impl Row {
    /// A figure without anything to compare it with.
    pub(crate) fn new(path: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        Self {
            path: path.into(),
            ours,
            unit,
            limit: 0.0,
            limit_name: "",
            naive: 0.0,
            ratio: 0.0,
            goal: "",
            met: true,
            cpu_percent: 0.0,
            memory_mib: 0.0,
        }
    }

    /// What the machine allows, measured in the same run.
    pub(crate) fn limit(self, limit: f64, limit_name: &'static str) -> Self {
        Self { limit, limit_name, ..self }
    }

    /// The naive design, measured in the same run.
    pub(crate) fn naive(self, naive: f64) -> Self {
        Self { naive, ..self }
    }

    /// Reached when ours is at least so many times `other`.
    pub(crate) fn at_least(self, times: f64, other: f64, goal: &'static str) -> Self {
        let ratio = self.ours / other;
        Self { ratio, goal, met: ratio >= times, ..self }
    }

    /// Reached when ours is at most so many times `other`.
    pub(crate) fn at_most(self, times: f64, other: f64, goal: &'static str) -> Self {
        let ratio = self.ours / other;
        Self { ratio, goal, met: ratio <= times, ..self }
    }

    /// What it took.
    pub(crate) fn cost(self, cost: &Cost) -> Self {
        Self { cpu_percent: cost.cpu_percent, memory_mib: cost.memory_mib, ..self }
    }
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
        "{:<40} {:>10} {:<6} {:>10} {:>10} {:>7} {:>5} {:>6}  {:<4} {}\n",
        "path", "ours", "unit", "limit", "naive", "ratio", "cpu%", "MiB", "met", "goal (limit)"
    );
    for row in rows {
        let limit_name = if row.limit_name.is_empty() { String::new() } else { format!(" ({})", row.limit_name) };
        text += &format!(
            "{:<40} {:>10.1} {:<6} {:>10.1} {:>10.1} {:>7.2} {:>5.0} {:>6.0}  {:<4} {}{limit_name}\n",
            row.path,
            row.ours,
            row.unit,
            row.limit,
            row.naive,
            row.ratio,
            row.cpu_percent,
            row.memory_mib,
            if row.met { "yes" } else { "NO" },
            row.goal,
        );
    }
    text
}
