//! Tells the program when it was built: no true time is earlier, which helps boards without a clock of their own.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

fn main() {
    // Whoever builds reproducibly says the time; see reproducible-builds.org/specs/source-date-epoch.
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let said = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    println!("cargo:rustc-env=DORA_REMOTE_BUILD_TIME={}", said.unwrap_or_else(now));
}
