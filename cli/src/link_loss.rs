//! What becomes of a dataflow whose machine does not hear the coordinator: as it is typed, and as it is kept in files.
//!
//! The flag of `start` is the strongest word, then [`FILE`] beside the dataflow's YAML, then the context. Dora's YAML cannot say it,
//! as dora refuses fields that it does not know.

use crate::{contexts::line_of, failure::Failure, output::time::parse_span};
use dora_remote_protocol::{
    dataflow::LinkLoss,
    limits::{MAX_LINK_SILENCE, MIN_LINK_SILENCE},
    refusal::Changed,
};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// What a dataflow's folder says to this program alone.
pub const FILE: &str = ".dora-remote.toml";
/// Largest such file in bytes.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    #[serde(default, with = "as_text")]
    on_link_loss: Option<LinkLoss>,
}

/// Reads a policy as people type it: `keep` or `stop-after=30s`.
///
/// # Errors
/// A text that says what is accepted.
pub fn parse(text: &str) -> Result<LinkLoss, String> {
    if text == "keep" {
        return Ok(LinkLoss::Keep);
    }
    let Some(span) = text.strip_prefix("stop-after=") else {
        return Err(format!(
            "`{}` is neither `keep` nor `stop-after=DURATION`",
            text.escape_debug()
        ));
    };
    let silence = parse_span(span)?;
    let policy = LinkLoss::StopAfter {
        silence_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
    };
    if policy.is_within_bounds() {
        return Ok(policy);
    }
    let (least, most) = (MIN_LINK_SILENCE.as_secs(), MAX_LINK_SILENCE.as_secs() / 86_400);
    Err(format!(
        "{span} is out of bounds: at least {least}s and at most {most}d are possible"
    ))
}

/// What [`FILE`] in the folder of a dataflow says, where there is one.
///
/// # Errors
/// A failure that names the line, when the file cannot be read or says something that is not understood.
pub fn beside(folder: &Path) -> Result<Option<LinkLoss>, Failure> {
    let path = folder.join(FILE);
    let failed = || Failure::usage(format!("cannot use {}", path.display())).changed(Changed::Nothing);
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed().because(&error)),
    };
    let settings: Settings = toml::from_str(&text).map_err(|error| {
        let line = line_of(&text, &error);
        failed()
            .cause(format!("line {line}: {}", error.message()))
            .hint("it may say `on-link-loss = \"keep\"` or `on-link-loss = \"stop-after=30s\"`")
    })?;
    Ok(settings.on_link_loss)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if bytes as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_BYTES} bytes"),
        ));
    }
    Ok(text)
}

/// A policy as text in a TOML file.
pub mod as_text {
    use super::{LinkLoss, parse};
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(policy: &Option<LinkLoss>, serializer: S) -> Result<S::Ok, S::Error> {
        match policy {
            Some(policy) => serializer.collect_str(policy),
            None => serializer.serialize_none(),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// What [`parse`] says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LinkLoss>, D::Error> {
        parse(&String::deserialize(deserializer)?)
            .map(Some)
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_typed_is_what_is_shown() {
        for text in [
            "keep",
            "stop-after=5s",
            "stop-after=30s",
            "stop-after=7500ms",
            "stop-after=2592000s",
        ] {
            assert_eq!(parse(text).expect(text).to_string(), text);
        }
        assert_eq!(parse("stop-after=5m"), Ok(LinkLoss::StopAfter { silence_ms: 300_000 }));
        for (text, word) in [
            ("stop", "neither"),
            ("Keep", "neither"),
            ("stop-after", "neither"),
            ("stop-after=", "not a span"),
            ("stop-after=soon", "not a span"),
            ("stop-after=-5s", "not a span"),
            ("stop-after=4999ms", "at least 5s"),
            ("stop-after=0", "at least 5s"),
            ("stop-after=31d", "at most 30d"),
            ("stop-after=99999999999999999999d", ""),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_file_beside_the_yaml_is_understood_or_refused_with_its_line() {
        let folder = tempfile::tempdir().expect("a directory");
        assert_eq!(beside(folder.path()).expect("no file"), None);
        let write = |text: &str| fs::write(folder.path().join(FILE), text).expect("written");
        for (text, policy) in [
            ("", None),
            ("on-link-loss = 'keep'\n", Some(LinkLoss::Keep)),
            (
                "# three heartbeats\non-link-loss = \"stop-after=5s\"\n",
                Some(LinkLoss::StopAfter { silence_ms: 5_000 }),
            ),
        ] {
            write(text);
            assert_eq!(beside(folder.path()).expect(text), policy);
        }
        for (text, words) in [
            ("\non-linkloss = 'keep'\n", &["line 2", "unknown field `on-linkloss`"][..]),
            ("on-link-loss = 'stop-after=1s'\n", &["line 1", "at least 5s"]),
            ("on-link-loss = 30\n", &["line 1", "string"]),
            ("on-link-loss\n", &["line 1"]),
            (&"#".repeat(70_000), &["more than 65536 bytes"]),
        ] {
            write(text);
            let failure = format!("{:?}", beside(folder.path()).expect_err("refused"));
            assert!(words.iter().all(|word| failure.contains(word)), "{failure}");
        }
        fs::remove_file(folder.path().join(FILE)).expect("there");
        fs::create_dir(folder.path().join(FILE)).expect("made");
        assert!(beside(folder.path()).is_err(), "a directory is no file");
    }
}
