//! What a file would become when it is executed: a program, a script for Python, or something that starts other programs.
//!
//! Decided by the beginning of the file, as the kernel does (execve(2)), and by its names. It is no proof: any program may start
//! others. What is told here serves the policy of a machine, whose roots are what really limits it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// What becomes of a file that is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// A program of its own.
    Program,
    /// A script that Python runs, as its first line says.
    Python,
    /// Something that runs whatever it is told; the text says why it counts as that.
    Shell(String),
}

/// Bytes at the beginning of a file that the kernel looks at (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: u64 = 256;
/// How an ELF file begins.
const ELF: &[u8] = b"\x7fELF";
/// Options of Python that neither name code nor take a value.
const PYTHON_OPTIONS: &str = "BEIOPRSdqsuv";

/// Programs that run what their arguments say: shells, interpreters, and those whose purpose is to start another program. Without
/// the version at their end, in lower case.
const SHELLS: &[&str] = &[
    // Shells, and files that are many programs in one.
    "ash",
    "bash",
    "busybox",
    "coreutils",
    "csh",
    "dash",
    "elvish",
    "fish",
    "ksh",
    "mksh",
    "nu",
    "pwsh",
    "rbash",
    "sh",
    "tcsh",
    "toybox",
    "yash",
    "zsh",
    // Interpreters.
    "awk",
    "bun",
    "deno",
    "dotnet",
    "emacs",
    "expect",
    "gawk",
    "gdb",
    "guile",
    "java",
    "jshell",
    "julia",
    "lldb",
    "lua",
    "luajit",
    "m4",
    "make",
    "mawk",
    "mono",
    "nawk",
    "node",
    "nodejs",
    "nvim",
    "perl",
    "php",
    "pypy",
    "python",
    "rscript",
    "ruby",
    "sed",
    "tclsh",
    "vi",
    "vim",
    "wish",
    // Starters of other programs.
    "capsh",
    "cargo",
    "chroot",
    "chrt",
    "conda",
    "docker",
    "doas",
    "env",
    "find",
    "firejail",
    "flatpak",
    "flock",
    "git",
    "gmake",
    "ionice",
    "ltrace",
    "mamba",
    "micromamba",
    "nice",
    "nohup",
    "npm",
    "npx",
    "nsenter",
    "numactl",
    "parallel",
    "pip",
    "pipx",
    "pixi",
    "pkexec",
    "podman",
    "prlimit",
    "ros2",
    "run-parts",
    "runcon",
    "runuser",
    "script",
    "setarch",
    "setpriv",
    "setsid",
    "socat",
    "ssh",
    "start-stop-daemon",
    "stdbuf",
    "strace",
    "su",
    "sudo",
    "systemd-run",
    "tar",
    "taskset",
    "time",
    "timeout",
    "tmux",
    "unshare",
    "uv",
    "uvx",
    "watch",
    "xargs",
];
/// Beginnings of further names: Python with a suffix of its build, and the loader, which starts any program.
const PREFIXES: &[&str] = &["python", "pypy", "ld-", "ld.so", "ld64"];

/// What the file at `real` becomes when it is executed by the name `spelled`. Both names count: a program may act by the one it is
/// called by.
pub(super) fn nature(spelled: &Path, real: &Path) -> Nature {
    let names = [spelled.file_name(), real.file_name()];
    if let Some(name) = names.into_iter().flatten().find(|name| is_shell(name)) {
        return Nature::Shell(format!("`{}` starts what its arguments say", name.display()));
    }
    match head(real) {
        Ok(head) if head.starts_with(ELF) => Nature::Program,
        Ok(head) => match head.strip_prefix(b"#!") {
            Some(line) => script(line),
            // What the kernel does not know, the C library hands to a shell (execvp, POSIX.1).
            None => Nature::Shell("it is neither a binary nor a script with an interpreter".to_owned()),
        },
        Err(error) => Nature::Shell(format!("it cannot be read ({})", error.kind())),
    }
}

/// Whether a program of this name runs what it is told.
fn is_shell(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    SHELLS.contains(&name.as_str()) || SHELLS.contains(&plain) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// A script by its first line, without the `#!`: the interpreter, and at most one argument, which may have spaces.
fn script(head: &[u8]) -> Nature {
    let blank = |c: char| c == ' ' || c == '\t';
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim_matches(blank);
    let (interpreter, argument) = line.split_once(blank).unwrap_or((line, ""));
    let (path, argument) = (Path::new(interpreter), argument.trim_matches(blank));
    let is_python = if path.file_name().is_some_and(|name| name == "env") {
        is_python(OsStr::new(argument)) && !argument.contains(blank)
    } else {
        // By its real name, too: a link called `python` may lead anywhere.
        let real = path.canonicalize().unwrap_or_default();
        path.is_absolute()
            && path.file_name().is_some_and(is_python)
            && real.file_name().is_some_and(is_python)
            && is_harmless(argument)
    };
    if is_python {
        Nature::Python
    } else {
        Nature::Shell(format!("it is a script for `{}`", line.escape_debug()))
    }
}

/// Whether a name is that of a Python interpreter: `python`, `python3`, `python3.12`, `pypy3`.
fn is_python(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let version = name.strip_prefix("python").or_else(|| name.strip_prefix("pypy"));
    version.is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Whether the argument of an interpreter's line is none, or options without a value.
fn is_harmless(argument: &str) -> bool {
    argument.is_empty()
        || argument
            .strip_prefix('-')
            .is_some_and(|options| !options.is_empty() && options.chars().all(|c| PYTHON_OPTIONS.contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    fn of(name: &str, content: &[u8]) -> Nature {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        fs::write(&path, content).expect("written");
        nature(&path, &path.canonicalize().expect("there"))
    }

    #[track_caller]
    fn counts_as_shell(nature: &Nature, why: &str) {
        assert!(matches!(nature, Nature::Shell(text) if text.contains(why)), "{nature:?}");
    }

    #[test]
    fn names_decide_whatever_is_inside() {
        for name in [
            "sh",
            "bash",
            "BASH",
            "dash",
            "python",
            "python3",
            "python3.12",
            "Python3",
            "python3.13t",
            "python3-dbg",
            "perl5.36.0",
            "lua5.4",
            "node",
            "busybox",
            "env",
            "sudo",
            "xargs",
            "find",
            "ld-linux-x86-64.so.2",
            "ld-musl-aarch64.so.1",
        ] {
            counts_as_shell(&of(name, ELF), &format!("`{name}` starts"));
        }
        for name in ["camera", "shell", "bash-camera", "findings", "enviro", "nodes", "camera.py"] {
            assert_eq!(of(name, ELF), Nature::Program, "{name}");
        }
    }

    #[test]
    fn a_link_counts_by_both_of_its_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let [plain, shell] = ["plain", "bash"].map(|name| dir.path().join(name));
        fs::write(&plain, ELF).expect("written");
        symlink(&plain, &shell).expect("made");
        counts_as_shell(&nature(&shell, &plain), "`bash`");
        fs::remove_file(&shell).expect("removed");
        fs::rename(&plain, &shell).expect("moved");
        symlink(&shell, &plain).expect("made");
        counts_as_shell(&nature(&plain, &shell), "`bash`");
    }

    #[test]
    fn scripts_count_as_shells_whatever_runs_them() {
        for (line, told) in [
            ("#!/bin/sh\n", "/bin/sh"),
            ("#!/bin/sh", "/bin/sh"),
            ("#! \t/bin/bash -e\necho", "/bin/bash -e"),
            ("#!/usr/bin/env bash\n", "/usr/bin/env bash"),
            ("#!/usr/bin/env -S python3 -u\n", "/usr/bin/env -S python3 -u"),
            ("#!/usr/bin/env -Spython3\n", "/usr/bin/env -Spython3"),
            ("#!/usr/bin/env X=1 python3\n", "/usr/bin/env X=1 python3"),
            ("#!/usr/bin/env pythonista\n", "pythonista"),
            ("#!/usr/bin/gdb\n", "/usr/bin/gdb"),
            ("#!python3\n", "python3"),
            ("#!./python3\n", "./python3"),
            ("#!/no/such/python3\n", "/no/such/python3"),
            ("#!\n", "``"),
        ] {
            counts_as_shell(&of("run", line.as_bytes()), told);
        }
        counts_as_shell(&of("run", b"echo hello\n"), "neither");
        counts_as_shell(&of("run", b""), "neither");
        counts_as_shell(&of("run.PY", b"print()\n"), "neither");
        let gone = Path::new("/no/such/file");
        counts_as_shell(&nature(gone, gone), "cannot be read");
    }

    #[test]
    fn scripts_for_python_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().join("python3.99");
        fs::write(&real, ELF).expect("written");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).expect("set");
        let link = dir.path().join("python");
        symlink(&real, &link).expect("made");
        for line in [
            "#!/usr/bin/env python3\n".to_owned(),
            "#!/usr/bin/env  python3.12 \n".to_owned(),
            format!("#!{}\n", real.display()),
            format!("#!{} -u\n", link.display()),
            format!("#! {} -sEu", link.display()),
        ] {
            assert_eq!(of("detector", line.as_bytes()), Nature::Python, "{line}");
        }
        let told = format!("{} -c import os", link.display());
        counts_as_shell(&of("detector", format!("#!{told}\n").as_bytes()), &told);
        // A link that is only called so.
        let disguise = dir.path().join("python2");
        symlink("/bin/sh", &disguise).expect("made");
        counts_as_shell(&of("detector", format!("#!{}\n", disguise.display()).as_bytes()), "python2");
    }
}
