//! A fake `fly` executable in a directory: it follows a test's script, and records its calls there.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The script itself. A test's folder holds a link to it: a file that was only just written may
/// still be open in another thread's child, and could not be run.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fake/fly");

/// A `fly` and its folder. Unix only; it needs `/bin/sh` and its friends.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("fake-fly-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// use atlas_testkit::fake_fly::FakeFly;
/// let fly = FakeFly::new(&folder)?;
/// fly.doing("echo 'Error: no' >&2; exit 1")?;
/// let status = std::process::Command::new(fly.program()).arg("deploy").stderr(std::process::Stdio::null()).status()?;
/// assert_eq!((status.code(), fly.calls()), (Some(1), vec!["deploy".to_owned()]));
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FakeFly {
    folder: PathBuf,
    program: PathBuf,
}

impl FakeFly {
    /// One in this folder, which must exist, that does in short what the real one does: `deploy`
    /// succeeds, `tokens create` makes `fm2_mint1`, `fm2_mint2` and so on, `tokens list` and
    /// `revoke` know them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(folder: impl AsRef<Path>) -> io::Result<Self> {
        Self::named(folder, "fly")
    }

    /// The same under another name, such as `flyctl`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn named(folder: impl AsRef<Path>, name: &str) -> io::Result<Self> {
        let folder = folder.as_ref().to_owned();
        let program = folder.join(name);
        symlink(SCRIPT, &program)?;
        let fake = Self { folder, program };
        fake.doing("standard \"$@\"")?;
        Ok(fake)
    }

    /// From now on it does this, in shell: `$FAKE_FLY` is its folder, `standard "$@"` does the
    /// usual, and `deploy`, `create_token`, `list_tokens`, `stubborn` and `forever` are parts of
    /// it. A process id appended to `$FAKE_FLY/pids` is watched too.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn doing(&self, scenario: &str) -> io::Result<()> {
        // Whole or not at all: it may be running.
        let draft = self.folder.join("scenario.new");
        fs::write(&draft, scenario)?;
        fs::rename(draft, self.folder.join("scenario"))
    }

    /// The executable.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its folder, which can be searched for it like one of the `PATH`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The arguments of each call, joined by blanks.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.lines("calls")
    }

    /// The environment of the last call, `NAME=value`.
    #[must_use]
    pub fn env(&self) -> Vec<String> {
        self.lines("env")
    }

    /// The working directory of the last call.
    #[must_use]
    pub fn working_directory(&self) -> Option<PathBuf> {
        self.lines("cwd").first().map(PathBuf::from)
    }

    /// What the last call's standard input was: `/dev/null` where it was closed.
    #[must_use]
    pub fn stdin(&self) -> Option<String> {
        self.lines("stdin").pop()
    }

    /// The signals that it wrote down (`stubborn` does).
    #[must_use]
    pub fn signals(&self) -> Vec<String> {
        self.lines("signals")
    }

    /// The lines of a file of its folder; none where there is none.
    #[must_use]
    pub fn lines(&self, file: &str) -> Vec<String> {
        fs::read_to_string(self.folder.join(file))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The watched processes that still run (Linux only). A zombie runs no more; see
    /// [`FakeFly::unreaped`].
    #[must_use]
    pub fn alive(&self) -> Vec<String> {
        self.watched("pids", |state| state != 'Z')
    }

    /// Those of its own processes, one for each call, that are still there at all, even as zombies
    /// (Linux only).
    #[must_use]
    pub fn unreaped(&self) -> Vec<String> {
        self.watched("leaders", |_| true)
    }

    fn watched(&self, file: &str, counts: impl Fn(char) -> bool) -> Vec<String> {
        let state = |pid: &String| {
            let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
            // After the name, which may hold anything but ends at the last parenthesis.
            stat.rsplit_once(')')?.1.trim_start().chars().next()
        };
        self.lines(file)
            .into_iter()
            .filter(|pid| state(pid).is_some_and(&counts))
            .collect()
    }
}
