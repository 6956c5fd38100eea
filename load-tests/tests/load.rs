//! The load generator as it is called.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn a_bench_without_gateways_measures_the_simulator_and_writes_the_table() {
    let out = std::env::temp_dir().join(format!("load-results-{}.md", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(["bench", "--nginx", "none", "--rounds", "1", "--seconds", "0.2", "--held", "20", "--only"]);
    let ran = command.arg("json-1k-c1").arg("--out").arg(&out).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    let row = text.lines().find(|line| line.contains("requests a second")).unwrap();
    let direct: f64 = row.split('|').nth(5).unwrap().trim().replace(',', "").parse().unwrap();
    assert!(direct > 1.0, "{row}");
    assert!(text.contains("No request failed."));
}

#[test]
fn a_gateway_that_is_not_there_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    let ran =
        command.args(["bench", "--nginx", "none", "--weir", "/no/such/weir", "--out", "/dev/null"]).output().unwrap();
    assert!(!ran.status.success());
    assert!(!String::from_utf8_lossy(&ran.stderr).is_empty());
}
