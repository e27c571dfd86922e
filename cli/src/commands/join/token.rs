//! Reads the token of an invite: from the command line, a file or standard input.

use crate::{commands::Context, exit::Exit, failure::Failure};
use dora_remote_protocol::{
    invite::{InviteToken, MAX_INVITE_TEXT_BYTES},
    refusal::Changed,
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    time::Duration,
};
use tokio::{task::spawn_blocking, time::timeout};

/// How long standard input is awaited.
const DEADLINE: Duration = Duration::from_secs(300);
/// Longest input in bytes: a token with the line and the words around it.
const MAX_INPUT_BYTES: u64 = 4 * MAX_INVITE_TEXT_BYTES as u64;

/// Reads the token that is given, or that comes on standard input.
///
/// # Errors
/// Exit code 2 for what is no token, 3 for a file that does not exist.
pub(super) async fn read(context: &Context, given: Option<&str>) -> Result<InviteToken, Failure> {
    let text = match given {
        Some(text) if is_token(text) => text.to_owned(),
        Some("-") | None => from_stdin(context).await?,
        Some(path) => from_file(path)?,
    };
    parse(&text)
}

/// A token alone, or the line that `invite` prints, of which the token is one word.
fn parse(text: &str) -> Result<InviteToken, Failure> {
    let word = text.split_ascii_whitespace().find(|word| is_token(word)).unwrap_or(text);
    word.parse().map_err(|error| {
        Failure::usage("this token cannot be used")
            .because(&error)
            .hint("copy all of what `dora-remote invite` has printed")
            .changed(Changed::Nothing)
    })
}

/// Whether a word looks like a token, of whatever version: `dri`, digits, and a dash.
fn is_token(word: &str) -> bool {
    word.strip_prefix("dri")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(version, _)| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()))
}

fn from_file(path: &str) -> Result<String, Failure> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_INPUT_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("cannot read a token from {path}"))
            .because(&error)
            .hint("give the token itself, which begins with `dri1-`, a file that holds it, or `-` for standard input")
            .changed(Changed::Nothing)
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn from_stdin(context: &Context) -> Result<String, Failure> {
    let by_hand = context.printer.may_ask();
    if by_hand {
        context.printer.question("paste the token of the invite:");
    }
    let failed = |failure: Failure| failure.changed(Changed::Nothing);
    let nothing = || Failure::new(Exit::Failed, "cannot read a token from standard input");
    match timeout(DEADLINE, spawn_blocking(move || read_input(io::stdin().lock(), by_hand))).await {
        Ok(Ok(Ok(text))) => Ok(text),
        Ok(Ok(Err(error))) => Err(failed(nothing().because(&error))),
        Ok(Err(error)) => Err(failed(nothing().because(&error))),
        Err(_) => Err(failed(Failure::new(Exit::Timeout, "no token came on standard input"))),
    }
}

/// A person ends with the line, a program with its output.
fn read_input(from: impl Read, by_hand: bool) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut from = BufReader::new(from.take(MAX_INPUT_BYTES));
    if by_hand {
        from.read_until(b'\n', &mut bytes)?;
    } else {
        from.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::invite::InviteSeed;

    fn token() -> InviteToken {
        let identity = "spiffe://lab/daemon/robot-7".parse().expect("an identity");
        InviteToken::new(identity, vec!["h:1".to_owned()], [1; 32], InviteSeed([2; 32]), 3).expect("good")
    }

    #[test]
    fn a_token_is_found_in_the_line_that_was_printed() {
        let token = token();
        for text in [
            format!("{token}"),
            format!("  {token}\r\n"),
            format!("dora-remote join {token} && dora-remote daemon\n"),
        ] {
            assert_eq!(parse(&text), Ok(token.clone()));
        }
    }

    #[test]
    fn what_is_no_token_is_a_mistake_of_the_command_line_and_never_shown_again() {
        let token = token().to_string();
        for text in [
            "",
            "robot-7",
            "dri1-",
            "dri2-aaaa",
            &token[..token.len() - 3],
            &token.replace("dri1-", "dri9-"),
        ] {
            let failure = parse(text).expect_err(text);
            assert_eq!((failure.exit, failure.changed), (Exit::Usage, Some(Changed::Nothing)));
            assert!(
                text.len() < 20 || !format!("{failure:?}").contains(&text[10..]),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn files_are_told_from_tokens() {
        assert!(is_token("dri1-abc") && is_token("dri12-"));
        for path in ["token.txt", "dri-", "drive-1", "./dri1-abc", "dri1", "-"] {
            assert!(!is_token(path), "{path}");
        }
        assert_eq!(from_file("/no/such/file").expect_err("not there").exit, Exit::NotFound);
    }

    #[test]
    fn by_hand_one_line_is_enough_and_nothing_is_read_without_end() {
        assert_eq!(read_input(&b"a\nb\n"[..], true).expect("read"), "a\n");
        assert_eq!(read_input(&b"a\nb\n"[..], false).expect("read"), "a\nb\n");
        let endless = read_input(io::repeat(b'a'), false).expect("read");
        assert_eq!(endless.len() as u64, MAX_INPUT_BYTES);
    }
}
