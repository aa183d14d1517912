//! One pass over a capture under callgrind, and what it counted.

use crate::analysis::Stage;
use crate::replay::replay_once;
use crate::stage::Pass;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Instructions of one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Frames that were seen.
    pub packets: u64,
    /// Of the whole process.
    pub total: u64,
    /// Of each function by itself.
    pub functions: BTreeMap<String, u64>,
}

/// Counts a pass as far as this stage.
pub fn count(stage: Stage, input: &Path) -> anyhow::Result<Counted> {
    let out = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let pass = replay_once(Some(stage), input)?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet", "--compress-pos=no"]);
    command.arg(format!("--callgrind-out-file={}", out.path().display()));
    command.arg(pass.get_program()).args(pass.get_args());
    let output = command.output().context("cannot run valgrind; install the package valgrind")?;
    if !output.status.success() {
        bail!("valgrind ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let pass: Pass = serde_json::from_slice(&output.stdout).context("a pass gave no measurement")?;
    let text = std::fs::read_to_string(out.path()).context("cannot read what callgrind wrote")?;
    let counted = read(&text).context("what callgrind wrote is not understood")?;
    Ok(Counted { packets: pass.packets, ..counted })
}

/// Reads callgrind's format (its manual, "Callgrind Format Specification") with one event and line numbers.
fn read(text: &str) -> Option<Counted> {
    let mut counted = Counted::default();
    let mut names = BTreeMap::new();
    let mut function = String::new();
    let mut called = false;
    for line in text.lines() {
        if let Some(spec) = line.strip_prefix("fn=") {
            function = resolve(spec, &mut names)?;
        } else if let Some(spec) = line.strip_prefix("cfn=") {
            resolve(spec, &mut names)?;
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|first: char| "0123456789+-*".contains(first)) {
            // The line after a call counts what was called, which has lines of its own.
            if !std::mem::take(&mut called) {
                let count: u64 = line.split(' ').nth(1)?.parse().ok()?;
                *counted.functions.entry(function.clone()).or_default() += count;
                counted.total += count;
            }
        }
    }
    Some(counted)
}

/// `(3) name` the first time, `(3)` then.
fn resolve(spec: &str, names: &mut BTreeMap<String, String>) -> Option<String> {
    let (id, name) = spec.split_once(')')?;
    let name = name.trim();
    if name.is_empty() {
        return names.get(id).cloned();
    }
    let name = plain(name);
    names.insert(id.to_owned(), name.clone());
    Some(name)
}

/// Without what differs from build to build: hashes of crates, and the mark of recursion.
fn plain(name: &str) -> String {
    let name = name.split("'2").next().unwrap_or(name);
    let name = match name.rsplit_once("::h") {
        Some((before, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => before,
        _ => name,
    };
    let mut text = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('[') {
        text.push_str(before);
        match after.split_once(']') {
            Some((inside, behind)) if inside.len() >= 15 && inside.bytes().all(|b| b.is_ascii_hexdigit()) => {
                rest = behind
            }
            _ => {
                text.push('[');
                rest = after;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_count_by_themselves() {
        let text = "events: Ir\nfl=(1) a.rs\nfn=(1) crate::outer::h0123456789abcdef\n10 5\ncfn=(2) inner\n\
                    calls=3 20\n11 600\n+1 7\n\nfn=(2)\n20 200\n* 400\n\nfn=(1)\n12 1\n\ntotals: 613\n";
        let counted = read(text).unwrap();
        assert_eq!(counted.total, 613);
        let of = |name: &str| counted.functions.get(name).copied();
        assert_eq!((of("crate::outer"), of("inner")), (Some(13), Some(600)));
    }

    #[test]
    fn names_lose_their_hashes() {
        assert_eq!(plain("<core[0123456789abcdef]::slice [u8] as x>::f"), "<core::slice [u8] as x>::f");
        assert_eq!(plain("decode'2"), "decode");
    }
}
