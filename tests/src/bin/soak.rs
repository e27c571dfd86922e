//! Random faults, one after another, over a flow that runs and its followers, for `scripts/soak`.
//!
//! Usage: `soak SECONDS [SEED]`. Each fault is followed by a heal phase that must converge. Prints a summary, and ends with 1 when a
//! line was lost, doubled or out of order, when something did not come back, or when a follower did not end well.

use anyhow::{Context, Result, ensure};
use dora_remote_tests::{
    faults::{Link, Stand, Tally},
    relay::{Random, Weather, seed},
};
use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Faults that it knows.
const FAULTS: [(&str, Kind); 12] = [
    ("robot's link cut", Kind::Cut),
    ("laptop's link cut", Kind::Cut),
    ("both links cut", Kind::Cut),
    ("robot from Wi-Fi to LTE", Kind::Cut),
    ("agent killed", Kind::Kill),
    ("coordinator killed", Kind::Kill),
    ("agent killed during a cut", Kind::Kill),
    ("coordinator killed during a cut", Kind::Kill),
    ("NAT port rebind", Kind::Rebind),
    ("NAT address rebind", Kind::Rebind),
    ("laptop asleep", Kind::Cut),
    ("bad weather", Kind::Spell),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Cut,
    Kill,
    Rebind,
    Spell,
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Log {
    happened: Vec<Kind>,
    slowest: Option<(Duration, &'static str)>,
    wrong: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let usage = "usage: soak SECONDS [SEED]";
    let mut words = std::env::args().skip(1);
    let time = Duration::from_secs(words.next().context(usage)?.parse().context(usage)?);
    let seed = match words.next() {
        Some(word) => word.parse().context(usage)?,
        None => seed(),
    };
    ensure!(words.next().is_none(), usage);
    eprintln!("soak: seed {seed}");
    let mut stand = Stand::with_seed(0, 100, seed).context("soak needs a Python with dora-rs: DORA_REMOTE_TEST_PYTHON")?;
    stand.add_follower();
    stand.until_line(150);

    let (mut random, mut log, began) = (Random::new(seed), Log::default(), Instant::now());
    // Only what did not go wrong is worth going on with: what follows a failure says little.
    while began.elapsed() < time && log.wrong.is_empty() {
        let (name, kind) = FAULTS[pick(&mut random, FAULTS.len())];
        log.happened.push(kind);
        let round = log.happened.len();
        let returned = catch_unwind(AssertUnwindSafe(|| {
            happen(name, &mut stand, &mut random);
            let returned = stand.converged();
            stand.wait(between(&mut random, 300, 1500));
            returned
        }));
        match returned.unwrap_or_else(|_| Err("see above".to_owned())) {
            Ok(returned) => {
                let live = returned.live.unwrap_or_default();
                eprintln!("soak: {round:>3} {name}: live again after {:.2} s", live.as_secs_f64());
                log.slowest = log.slowest.max(Some((live, name)));
            }
            Err(error) => log.wrong.push(format!("{round} {name}: {error}")),
        }
    }
    Ok(conclude(stand, log, began.elapsed()))
}

/// One fault and its end.
fn happen(name: &str, stand: &mut Stand, random: &mut Random) {
    let long = between(random, 500, 9000);
    let link = match random.below(3) {
        0 => Link::Robot,
        1 => Link::Laptop,
        _ => Link::Both,
    };
    match name {
        "robot's link cut" => stand.cut_for(Link::Robot, long),
        "laptop's link cut" => stand.cut_for(Link::Laptop, long),
        "both links cut" => stand.cut_for(Link::Both, long),
        "robot from Wi-Fi to LTE" => stand.move_robot(long.min(Duration::from_secs(3))),
        "agent killed" => stand.kill_agent(long / 3),
        "coordinator killed" => stand.kill_coordinator(long / 2),
        "agent killed during a cut" => stand.cut(link, |stand| stand.kill_agent(long / 3)),
        "coordinator killed during a cut" => stand.cut(link, |stand| stand.kill_coordinator(long / 2)),
        "NAT port rebind" => stand.rebind_ports(link),
        "NAT address rebind" => stand.rebind_address(link),
        "laptop asleep" => stand.stop_followers(long),
        _ => {
            let weather = Weather {
                delay: between(random, 5, 120),
                jitter: between(random, 0, 40),
                lost: u32::try_from(random.below(80)).unwrap_or_default(),
                doubled: 10,
                overtaken: 50,
                rate: (random.below(2) == 0).then_some(125_000),
                queue: Duration::from_millis(300),
                largest: (random.below(3) == 0).then_some(1_250),
            };
            stand.robot.set_weather(weather);
            stand.laptop.set_weather(weather);
            stand.wait(long);
            stand.robot.set_weather(Weather::default());
            stand.laptop.set_weather(Weather::default());
        }
    }
    stand.healed();
}

fn between(random: &mut Random, least: u64, most: u64) -> Duration {
    Duration::from_millis(least + random.below(most - least + 1))
}

fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap_or_default()
}

/// Ends the flow, prints the summary, and gives the exit code.
fn conclude(stand: Stand, mut log: Log, took: Duration) -> ExitCode {
    let before = stand.followed();
    let is_well = log.wrong.is_empty();
    let end = if is_well { Stand::finish } else { Stand::end };
    let (followers, stored) = match catch_unwind(AssertUnwindSafe(|| end(stand))) {
        Ok(report) => {
            log.wrong.extend(report.faults());
            let followers = report.followers.iter().map(|(seen, ..)| seen.clone()).collect();
            (followers, Some(report.stored))
        }
        Err(_) => {
            log.wrong.push("the end: see above".to_owned());
            (before, None)
        }
    };
    let count = |kind| log.happened.iter().filter(|happened| **happened == kind).count();
    let mut summary = format!(
        "soak: {:.0} s, {} faults: {} cuts, {} kills, {} rebinds, {} spells of bad weather",
        took.as_secs_f64(),
        log.happened.len(),
        count(Kind::Cut),
        count(Kind::Kill),
        count(Kind::Rebind),
        count(Kind::Spell)
    );
    let seen: Vec<&Tally> = followers.iter().chain(&stored).collect();
    let printed = seen.iter().find_map(|seen| seen.done);
    let printed = printed.map_or_else(|| "unknown".to_owned(), |lines| lines.to_string());
    let _ = write!(summary, "\nsoak: lines in {printed}; out");
    for (number, seen) in (1..).zip(&followers) {
        let _ = write!(summary, " {} to follower {number},", seen.lines);
    }
    let _ = write!(
        summary,
        " {} stored\nsoak: lost {}, doubled {}, out of order {}, gaps {}; largest pause of the node {} ms",
        stored
            .as_ref()
            .map_or_else(|| "unknown".to_owned(), |seen| seen.lines.to_string()),
        seen.iter().map(|seen| seen.lost()).sum::<u64>(),
        seen.iter().map(|seen| seen.doubled).sum::<u64>(),
        seen.iter().map(|seen| seen.disordered).sum::<u64>(),
        seen.iter().map(|seen| seen.gaps).sum::<u64>(),
        // The first follower measures since the flow runs steadily; others have seen its start.
        followers[0].pause.as_millis()
    );
    if let Some((time, fault)) = log.slowest {
        let _ = write!(summary, "; slowest return {:.2} s ({fault})", time.as_secs_f64());
    }
    eprintln!("{summary}");
    for wrong in &log.wrong {
        eprintln!("soak: FAILED: {wrong}");
    }
    ExitCode::from(u8::from(!log.wrong.is_empty()))
}
