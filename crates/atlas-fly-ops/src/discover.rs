//! Finds the Fly apps of a project. Files that could not be used are reported with the result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::app_name::AppName;
use crate::config_file::{self, BrokenAt, Format};

/// The files that `fly` searches for in a directory, in order; the first one found counts.
const CONFIG_FILES: [(&str, Format); 3] = [
    ("fly.toml", Format::Toml),
    ("fly.json", Format::Json),
    ("fly.yaml", Format::Yaml),
];

/// Folders of version control and of dependencies: never entered below the root.
const SKIPPED: [&str; 14] = [
    ".git",
    ".hg",
    ".svn",
    ".jj",
    "node_modules",
    "bower_components",
    "vendor",
    "target",
    "deps",
    "_build",
    ".venv",
    "venv",
    "__pycache__",
    ".terraform",
];

/// An app of a project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct FlyApp {
    /// The app's name, as in its configuration file.
    pub name: AppName,
    /// The folder of its configuration: where a deploy runs.
    pub directory: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// `primary_region`, where it is set.
    pub primary_region: Option<String>,
}

/// The result of a search: apps, and reports on what could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discovery {
    /// The apps, by name, then folder.
    pub apps: Vec<FlyApp>,
    /// What was found and not used, in the order of the search.
    pub reports: Vec<Report>,
}

/// Something that was found and not used, or used with a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The file or folder.
    pub path: PathBuf,
    /// The problem.
    pub problem: Problem,
}

/// Why something was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It cannot be read, or is not what its name says (a folder called `fly.toml`).
    Unreadable(io::ErrorKind),
    /// Larger than any configuration is.
    TooLarge,
    /// Not text in UTF-8.
    NotUtf8,
    /// Its parser stopped, at this line where it says so.
    Broken(Option<usize>),
    /// It names no app at its top level: a template, or one that is deployed with `-a`.
    NoApp,
    /// It names an app that Fly would refuse. The name is not repeated.
    BadName,
    /// `fly` takes another file of the same folder before this one.
    Shadowed,
    /// `fly` reads it only when asked to (`fly.staging.toml`), or never (`fly.yml`).
    NotRead,
    /// A link that leads back to a folder it is in.
    SymlinkLoop,
    /// A link that leads out of the project: not followed.
    OutsideProject,
    /// Another folder holds the same app. Both are among the results.
    DuplicateApp,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(kind) => write!(f, "cannot be read: {kind}"),
            Self::TooLarge => f.write_str("is too large for a configuration"),
            Self::NotUtf8 => f.write_str("is not utf-8"),
            Self::Broken(Some(line)) => write!(f, "cannot be parsed, line {line}"),
            Self::Broken(None) => f.write_str("cannot be parsed"),
            Self::NoApp => f.write_str("names no app"),
            Self::BadName => f.write_str("names an app that fly would refuse"),
            Self::Shadowed => f.write_str("is not used: another file of this folder comes first"),
            Self::NotRead => f.write_str("is read by fly only when named with -c, or not at all"),
            Self::SymlinkLoop => f.write_str("is a link to a folder it is in"),
            Self::OutsideProject => f.write_str("is a link out of the project"),
            Self::DuplicateApp => f.write_str("names an app that another folder names too"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Debug`: a hostile file name cannot drive the terminal.
        write!(f, "{:?} {}", self.path, self.problem)
    }
}

/// The usual depth for `fly`: the root and the directories in it.
pub const DEFAULT_DEPTH: usize = 1;

/// Finds the apps in `root` and up to `max_depth` levels of folders below it (0: the root alone).
///
/// Reads files: call it where blocking is allowed. A root that is not a folder gives no apps and
/// one report.
#[must_use]
pub fn discover_apps(root: &Path, max_depth: usize) -> Discovery {
    let mut walk = Walk {
        root: None,
        seen: BTreeSet::new(),
        found: Discovery::default(),
    };
    match fs::canonicalize(root) {
        Err(error) => walk.report(root, Problem::Unreadable(error.kind())),
        Ok(real) => {
            walk.root = Some(real);
            let mut level = vec![root.to_owned()];
            for depth in 0..=max_depth {
                if level.is_empty() {
                    break;
                }
                let mut below = Vec::new();
                for folder in &level {
                    walk.folder(folder, depth < max_depth, &mut below);
                }
                // Folders before links to them, so that a result is named by its own place.
                below.sort();
                let (links, folders): (Vec<_>, Vec<_>) =
                    below.into_iter().partition(|(is_link, _)| *is_link);
                level = folders
                    .into_iter()
                    .chain(links)
                    .map(|(_, path)| path)
                    .collect();
            }
        }
    }
    let mut found = walk.found;
    found.apps.sort();
    let mut first: BTreeMap<&AppName, ()> = BTreeMap::new();
    for app in &found.apps {
        if first.insert(&app.name, ()).is_some() {
            found.reports.push(Report {
                path: app.config.clone(),
                problem: Problem::DuplicateApp,
            });
        }
    }
    found
}

struct Walk {
    root: Option<PathBuf>,
    /// Device and inode of each folder that was entered.
    seen: BTreeSet<(u64, u64)>,
    found: Discovery,
}

impl Walk {
    fn report(&mut self, path: &Path, problem: Problem) {
        self.found.reports.push(Report {
            path: path.to_owned(),
            problem,
        });
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let looped = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        self.report(
            path,
            if looped {
                Problem::SymlinkLoop
            } else {
                Problem::Unreadable(error.kind())
            },
        );
    }

    /// Reads one folder's configuration; its folders go to `below`, each with whether it is a link.
    fn folder(&mut self, folder: &Path, deeper: bool, below: &mut Vec<(bool, PathBuf)>) {
        match fs::metadata(folder) {
            Ok(meta) if !self.seen.insert((meta.dev(), meta.ino())) => return,
            Ok(_) => {}
            Err(error) => return self.unreadable(folder, &error),
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(folder, &error),
        };
        let mut configs = Vec::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.unreadable(folder, &error);
                    continue;
                }
            };
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if let Some(rank) = CONFIG_FILES.iter().position(|(config, _)| *config == name) {
                configs.push((rank, path));
                continue;
            }
            if is_extra_config(&name) {
                self.report(&path, Problem::NotRead);
                continue;
            }
            if !deeper || SKIPPED.contains(&&*name) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => below.push((false, path)),
                Ok(kind) if kind.is_symlink() && self.leads_to_a_folder(&path) => {
                    below.push((true, path))
                }
                Ok(_) => {}
                Err(error) => self.unreadable(&path, &error),
            }
        }
        configs.sort();
        let mut configs = configs.into_iter();
        if let Some((rank, path)) = configs.next() {
            self.config(folder, &path, CONFIG_FILES[rank].1);
        }
        for (_, path) in configs {
            self.report(&path, Problem::Shadowed);
        }
    }

    /// Whether a link may be followed: to a folder of this project that it is not itself in.
    fn leads_to_a_folder(&mut self, link: &Path) -> bool {
        let real = match fs::canonicalize(link) {
            Ok(real) => real,
            Err(error) => {
                self.unreadable(link, &error);
                return false;
            }
        };
        if !real.is_dir() {
            return false;
        }
        let own = link
            .parent()
            .and_then(|parent| fs::canonicalize(parent).ok());
        if own.is_some_and(|own| own.starts_with(&real)) {
            self.report(link, Problem::SymlinkLoop);
            return false;
        }
        let Some(within) = self
            .root
            .as_ref()
            .and_then(|root| real.strip_prefix(root).ok())
        else {
            self.report(link, Problem::OutsideProject);
            return false;
        };
        !within.components().any(|part| {
            part.as_os_str()
                .to_str()
                .is_some_and(|part| SKIPPED.contains(&part))
        })
    }

    fn config(&mut self, folder: &Path, path: &Path, format: Format) {
        let text = match read_text(path, format.limit()) {
            Ok(text) => text,
            Err(problem) => return self.report(path, problem),
        };
        let config = match config_file::read(format, text.strip_prefix('\u{feff}').unwrap_or(&text))
        {
            Ok(config) => config,
            Err(BrokenAt(line)) => return self.report(path, Problem::Broken(line)),
        };
        match config.app.map(AppName::new) {
            None => self.report(path, Problem::NoApp),
            Some(Err(_)) => self.report(path, Problem::BadName),
            Some(Ok(name)) => self.found.apps.push(FlyApp {
                name,
                directory: folder.to_owned(),
                config: path.to_owned(),
                primary_region: config.primary_region,
            }),
        }
    }
}

fn read_text(path: &Path, limit: u64) -> Result<String, Problem> {
    let unreadable = |error: io::Error| {
        let looped = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        if looped {
            Problem::SymlinkLoop
        } else {
            Problem::Unreadable(error.kind())
        }
    };
    // Before it is opened: a named pipe would never answer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Problem::Unreadable(io::ErrorKind::InvalidInput));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Problem::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| Problem::NotUtf8)
}

/// `fly.yml`, which `fly` does not know, and `fly.<anything>.toml` and its like, which it reads
/// when told to.
fn is_extra_config(name: &str) -> bool {
    name == "fly.yml"
        || name.strip_prefix("fly.").is_some_and(|rest| {
            [".toml", ".json", ".yaml", ".yml"].iter().any(|end| {
                rest.strip_suffix(end)
                    .is_some_and(|middle| !middle.is_empty())
            })
        })
}
