//! A run: simulator and gateways are started, scenarios measured in turn at each, and the results written.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Bench;
use crate::beside::{Beside, Within};
use crate::drive;
use crate::gateway::{self, Gateway, Kind, Rules, Size};
use crate::machine::{Machine, load_average};
use crate::process::{Meter, Process};
use crate::reload;
use crate::report::{self, Measured, Row};
use crate::scenario::{self, Load, Scenario};
use crate::targets::{LARGE_WITHIN, MANAGED_LATENCY, MANAGED_WITHIN, TRANSLATED_WITHIN};

/// Measures what was asked for, prints the table and writes it.
pub(crate) async fn run(bench: &Bench) -> io::Result<()> {
    let room = Room::make()?;
    let machine = Machine::here();
    let (simulator, address) = start_simulator(&machine).await?;
    let run = Run { bench, room: &room.0, machine: &machine, provider: address, meter: simulator.meter() };
    let outcome = run.measure().await;
    simulator.end().await;
    let (rows, failures) = outcome?;
    let text = run.write_up(&rows, &failures);
    println!("\n{text}");
    if let Some(parent) = bench.out.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&bench.out, text)
}

/// A folder that goes when it falls.
struct Room(PathBuf);

impl Room {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("weir-load-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What cannot be removed is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn start_simulator(machine: &Machine) -> io::Result<(Process, SocketAddr)> {
    let own = std::env::current_exe()?;
    let mut process = Process::start(&own, &["simulate"], machine.simulator(), &[])?;
    let address = process.line_with("weir: simulator on http://").await?;
    process.forget_output();
    let address = address.trim().parse().map_err(|_| io::Error::other("the simulator did not say where it listens"))?;
    Ok((process, address))
}

/// The scenario of that name, which configurations are compared by.
fn named(name: &str) -> io::Result<Scenario> {
    let found = scenario::all(0).into_iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| io::Error::other(format!("there is no scenario `{name}`")))
}

/// The scenario by which the processor time of two configurations is compared.
const PLAIN: &str = "json-1k-c64";

struct Run<'a> {
    bench: &'a Bench,
    room: &'a Path,
    machine: &'a Machine,
    provider: SocketAddr,
    /// The simulator's.
    meter: Meter,
}

impl Run<'_> {
    async fn measure(&self) -> io::Result<(Vec<Row>, Vec<String>)> {
        let gateways = self.start_all("main").await?;
        let (mut rows, mut failures) = (Vec::new(), Vec::new());
        for scenario in scenario::all(self.bench.held).into_iter().filter(|scenario| self.wants(scenario.name)) {
            let measured = match scenario.load {
                Load::Held(_) => self.rounds_afresh(scenario).await?,
                Load::Closed(_) | Load::Open(_) => self.rounds(&gateways, scenario).await?,
            };
            rows.extend(measured.rows());
            failures
                .extend([Kind::Weir, Kind::Nginx, Kind::Direct].into_iter().filter_map(|kind| measured.failures(kind)));
        }
        if self.wants("translated") {
            rows.extend(self.translated().await?);
        }
        if self.wants("relay") {
            rows.extend(self.relay().await?);
        }
        if self.wants("managed") {
            rows.extend(self.managed().await?);
        }
        if self.wants("large") || self.wants("reload") {
            rows.extend(self.large().await?);
        }
        for gateway in gateways {
            gateway.end().await;
        }
        Ok((rows, failures))
    }

    fn wants(&self, name: &str) -> bool {
        self.bench.only.as_deref().is_none_or(|only| name.contains(only))
    }

    async fn start_all(&self, name: &str) -> io::Result<Vec<Gateway>> {
        let mut gateways = Vec::new();
        if let Some(weir) = &self.bench.weir {
            let room = self.room.join(format!("{name}-weir"));
            gateways.push(Gateway::weir(weir, &room, self.provider, Size::SMALL, self.machine.gateway()).await?);
        }
        if self.bench.nginx != "none" {
            let room = self.room.join(format!("{name}-nginx"));
            gateways.push(Gateway::nginx(&self.bench.nginx, &room, self.provider, self.machine.gateway()).await?);
        }
        gateways.push(Gateway::direct(self.provider, self.meter));
        Ok(gateways)
    }

    /// Round by round, each gateway in turn, so that what else the machine does hits all of them.
    async fn rounds(&self, gateways: &[Gateway], scenario: Scenario) -> io::Result<Measured> {
        let mut rounds = Vec::new();
        for round in 1..=self.bench.rounds {
            let mut samples = Vec::new();
            for gateway in gateways {
                self.tell(&scenario, gateway, round);
                samples.push((gateway.kind, drive::measure(gateway, &scenario, self.bench.time()).await?));
            }
            rounds.push(samples);
        }
        Ok(Measured { scenario, rounds })
    }

    /// The same with new processes for each round: memory that was once used is seldom given back. A third of the
    /// rounds: what is measured of them differs little.
    async fn rounds_afresh(&self, scenario: Scenario) -> io::Result<Measured> {
        let mut rounds = Vec::new();
        for round in 1..=self.bench.rounds.div_ceil(3) {
            let mut samples = Vec::new();
            for gateway in self.start_all(&format!("{}-{round}", scenario.name)).await? {
                self.tell(&scenario, &gateway, round);
                let sample = drive::measure(&gateway, &scenario, self.bench.time()).await;
                samples.push((gateway.kind, sample?));
                gateway.end().await;
            }
            rounds.push(samples);
        }
        Ok(Measured { scenario, rounds })
    }

    /// A request that is translated, whole, beside one that is passed through.
    async fn translated(&self) -> io::Result<Option<Row>> {
        let Some(weir) = self.fresh("translated", Size::SMALL).await? else {
            return Ok(None);
        };
        let beside = Beside {
            title: "OpenAI in, Anthropic behind, beside the own pass-through, 64 connections".to_owned(),
            names: ["passed", "translated"],
            sides: [(&weir, &named(PLAIN)?), (&weir, &named("anthropic-json")?)],
        };
        let row = self.beside(&beside, Within::Cpu(TRANSLATED_WITHIN)).await;
        weir.end().await;
        row.map(Some)
    }

    /// An access log beside none: without it a Weir is as near to an open relay as it comes.
    async fn relay(&self) -> io::Result<Option<Row>> {
        let (Some(bare), Some(weir)) = (self.fresh("bare", Size::BARE).await?, self.fresh("plain", Size::SMALL).await?)
        else {
            return Ok(None);
        };
        let plain = named(PLAIN)?;
        let beside = Beside {
            title: format!("access log beside none, which is as near to an open relay as Weir comes, {}", plain.title),
            names: ["relay", "log"],
            sides: [(&bare, &plain), (&weir, &plain)],
        };
        let row = self.beside(&beside, Within::AnyCpu).await;
        bare.end().await;
        weir.end().await;
        row.map(Some)
    }

    async fn beside(&self, beside: &Beside<'_>, within: Within) -> io::Result<Row> {
        eprintln!("load: {}", beside.title);
        beside.measure(within, self.bench.rounds, self.bench.time()).await
    }

    /// Limits, budgets and prices beside a configuration without: this gateway's own, and shared ones.
    async fn managed(&self) -> io::Result<Vec<Row>> {
        let mut rows = self.ruled("limits, budgets and prices beside none", Rules::Own).await?;
        if self.bench.redis != "none" {
            let (redis, address) = gateway::redis(&self.bench.redis, self.machine.simulator()).await?;
            let shared = self.ruled("the same, shared through a Redis", Rules::Shared(address)).await;
            redis.end().await;
            rows.extend(shared?);
        }
        Ok(rows)
    }

    async fn ruled(&self, title: &'static str, rules: Rules) -> io::Result<Vec<Row>> {
        let (Some(free), Some(ruled)) =
            (self.fresh("free", Size::SMALL).await?, self.fresh("ruled", Size::under(rules)).await?)
        else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        for (scenario, within) in
            [(PLAIN, Within::Cpu(MANAGED_WITHIN)), ("open-1000", Within::Latency(MANAGED_LATENCY))]
        {
            let scenario = named(scenario)?;
            let title = format!("{title}, {}", scenario.title);
            let beside = Beside { title, names: ["off", "on"], sides: [(&free, &scenario), (&ruled, &scenario)] };
            rows.push(self.beside(&beside, within).await?);
        }
        free.end().await;
        ruled.end().await;
        Ok(rows)
    }

    /// A Weir that has served nothing yet.
    async fn fresh(&self, name: &str, size: Size) -> io::Result<Option<Gateway>> {
        let Some(weir) = &self.bench.weir else {
            return Ok(None);
        };
        let room = self.room.join(name);
        // What another one left there is not this one's.
        let _ = fs::remove_dir_all(&room);
        Gateway::weir(weir, &room, self.provider, size, self.machine.gateway()).await.map(Some)
    }

    async fn large(&self) -> io::Result<Vec<Row>> {
        let size = Size { keys: self.bench.keys, models: self.bench.models, ..Size::SMALL };
        eprintln!("load: large configuration: {} keys, {} models", size.keys, size.models);
        let begun = Instant::now();
        let Some(large) = self.fresh("large", size).await? else {
            return Ok(Vec::new());
        };
        let scenario = named(PLAIN)?;
        let mut rows = vec![reload::start(size, begun.elapsed())];
        if self.wants("large")
            && let Some(small) = self.fresh("small", Size::SMALL).await?
        {
            let title = "large configuration beside the small one".to_owned();
            let sides = [(&small, &scenario), (&large, &scenario)];
            let beside = Beside { title, names: ["small", "large"], sides };
            rows.push(self.beside(&beside, Within::Cpu(LARGE_WITHIN)).await?);
            small.end().await;
        }
        if self.wants("reload") {
            rows.extend(reload::under_load(&large, &self.room.join("large"), &scenario).await?);
        }
        large.end().await;
        Ok(rows)
    }

    fn tell(&self, scenario: &Scenario, gateway: &Gateway, round: usize) {
        eprintln!("load: {} at {}, round {round} of {}", scenario.name, gateway.kind.name(), self.bench.rounds);
    }

    fn write_up(&self, rows: &[Row], failures: &[String]) -> String {
        let weir = self.bench.weir.as_ref().map(|path| path.to_string_lossy().into_owned());
        let nginx = Some(self.bench.nginx.as_str()).filter(|nginx| *nginx != "none");
        let mut out = String::from(
            "# Load tests: results\n\nWritten by `load-tests/bench.sh`; `README.md` tells what each row means.\n\n",
        );
        out.push_str("| | |\n| --- | --- |\n");
        for (name, value) in self.machine.describe(weir.as_deref(), nginx) {
            out.push_str(&format!("| {name} | {value} |\n"));
        }
        let Bench { rounds, seconds, .. } = self.bench;
        out.push_str(&format!(
            "| rounds | {rounds} of {seconds} s each, gateways in turn; medians, of ratios and differences too |\n"
        ));
        out.push_str(&format!("| load average at the end | {} |\n\n", load_average()));
        out.push_str(&report::table(rows));
        for failure in failures {
            out.push_str(&format!("\n- {failure}"));
        }
        out.push_str(if failures.is_empty() { "\nNo request failed.\n" } else { "\n" });
        out
    }
}
