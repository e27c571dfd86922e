//! Asks a person before much is destroyed. Where nobody can be asked nothing is: programs mean what they say.

use super::Context;
use crate::{exit::Exit, failure::Failure};
use dora_remote_protocol::refusal::Changed;
use std::{
    io::{self, BufRead},
    time::Duration,
};
use tokio::{task::spawn_blocking, time::timeout};

/// How long an answer is awaited.
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);
/// Longest answer in bytes; what is longer is no yes.
const MAX_ANSWER_BYTES: u64 = 64;

/// Asks whether `count` dataflows are to be stopped, unless `yes` says so already or no person is there to ask.
/// The person types `yes` or the number.
///
/// # Errors
/// A failure that says that nothing was changed when the answer is anything else, or none comes within five minutes.
pub async fn stop_of(context: &Context, what: &str, count: usize, yes: bool) -> Result<(), Failure> {
    that(context, what, &count.to_string(), yes).await
}

/// Asks whether something is to be done, unless `yes` says so already or no person is there to ask.
/// The person types `yes` or the word, which nobody types without having read it.
///
/// # Errors
/// As [`stop_of`].
pub async fn that(context: &Context, what: &str, word: &str, yes: bool) -> Result<(), Failure> {
    if yes || !context.printer.may_ask() {
        return Ok(());
    }
    context.printer.question(&format!("{what}\ntype `yes` or `{word}` to go on:"));
    let answer = match timeout(ANSWER_DEADLINE, spawn_blocking(|| read_answer(io::stdin().lock()))).await {
        Ok(Ok(answer)) => answer.map_err(|error| not_confirmed().because(&error))?,
        Ok(Err(error)) => return Err(not_confirmed().because(&error)),
        Err(_) => return Err(not_confirmed().cause("no answer came")),
    };
    if is_yes(&answer, word) { Ok(()) } else { Err(not_confirmed()) }
}

fn not_confirmed() -> Failure {
    Failure::new(Exit::Failed, "not confirmed")
        .hint("with `--yes` you are not asked")
        .changed(Changed::Nothing)
}

fn read_answer(from: impl BufRead) -> io::Result<String> {
    let mut answer = Vec::new();
    from.take(MAX_ANSWER_BYTES).read_until(b'\n', &mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn is_yes(answer: &str, word: &str) -> bool {
    let answer = answer.trim();
    answer == "yes" || answer == word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_and_the_number_are_a_yes() {
        for (answer, is) in [
            ("yes\n", true),
            (" 3 \r\n", true),
            ("", false),
            ("\n", false),
            ("y\n", false),
            ("no\n", false),
            ("2\n", false),
            ("03\n", false),
            ("yes please\n", false),
        ] {
            let read = read_answer(answer.as_bytes()).expect("read");
            assert_eq!(is_yes(&read, "3"), is, "{answer:?}");
        }
        let long = format!("{}yes\n", " ".repeat(100));
        assert!(!is_yes(&read_answer(long.as_bytes()).expect("read"), "3"));
    }
}
