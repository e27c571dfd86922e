//! Foreign text made safe for a terminal: logs, names and errors of others may carry sequences that move the cursor, set the
//! title, write to the clipboard or turn the reading direction.

/// Makes one line of foreign text safe: colour sequences go, every other control and every sign that turns the reading
/// direction is shown as an escape. A tab stays.
#[must_use]
pub fn escape(text: &str) -> String {
    if !text.chars().any(is_unsafe) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = colour_length(rest) {
            rest = &rest[length..];
            continue;
        }
        if is_unsafe(first) {
            safe.extend(first.escape_default());
        } else {
            safe.push(first);
        }
        rest = &rest[first.len_utf8()..];
    }
    safe
}

/// Like [`escape`], but line ends stay line ends.
#[must_use]
pub fn escape_lines(text: &str) -> String {
    let lines: Vec<_> = text
        .trim_end()
        .split('\n')
        .map(|line| escape(line.trim_end_matches('\r')))
        .collect();
    lines.join("\n")
}

/// Bytes of the colour sequence (`ESC [ digits and semicolons m`, ECMA-48 section 8.3.117) at the start of `text`.
fn colour_length(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\u{1b}[")?;
    let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    body[end..].starts_with('m').then_some("\u{1b}[".len() + end + 1)
}

/// Controls (C0 but tab, DEL, C1), bidi marks and embeddings (Unicode annex 9), and line separators.
fn is_unsafe(c: char) -> bool {
    match c {
        '\t' => false,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        _ => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_that_act_on_a_terminal_are_shown_and_do_not_act() {
        assert_eq!(escape("\u{1b}]0;title\u{7}"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(escape("\u{1b}]52;c;ZXZpbA==\u{1b}\\"), "\\u{1b}]52;c;ZXZpbA==\\u{1b}\\");
        assert_eq!(escape("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(escape("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(escape("a\rb\nc"), "a\\rb\\nc");
    }

    #[test]
    fn signs_that_turn_the_reading_direction_are_shown() {
        assert_eq!(escape("abc\u{202e}fdp.exe"), "abc\\u{202e}fdp.exe");
        assert_eq!(escape("\u{2066}x\u{2069}"), "\\u{2066}x\\u{2069}");
    }

    #[test]
    fn colour_goes_and_text_stays() {
        assert_eq!(escape("\u{1b}[1;32mgreen\u{1b}[0m"), "green");
        assert_eq!(escape("\u{1b}[32"), "\\u{1b}[32");
        assert_eq!(escape("grün\t日本"), "grün\t日本");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(escape_lines("a\r\nb\u{7}\n"), "a\nb\\u{7}");
    }
}
