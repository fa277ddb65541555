//! Runs the built program in a directory of its own, with nothing of this machine's environment
//! that could change what it does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What one run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The one JSON document on the one line of standard output.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(
            self.out.lines().count(),
            1,
            "not one line: {:?}, stderr {:?}",
            self.out,
            self.err
        );
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {:?}", self.out))
    }

    /// The same, of a run that must have succeeded.
    pub(crate) fn good(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.json()
    }
}

/// A directory with the program in it.
pub(crate) struct Program {
    dir: TempDir,
    env: Vec<(&'static str, String)>,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().expect("a directory for a test"),
            env: Vec::new(),
        }
    }

    /// With an account on a simulated RunPod, and its bounds in the configuration file.
    pub(crate) fn on(sim: &Sim) -> Self {
        let mut program = Self::new();
        let text = |path: &str| {
            sim.ready
                .pointer(path)
                .and_then(Value::as_str)
                .expect("the ready line has it")
                .to_owned()
        };
        program.env.push(("RUNPOD_API_KEY", "sim-key".to_owned()));
        program
            .env
            .push(("ATLAS_RUNPOD_URL", text("/runpod/control")));
        program
            .env
            .push(("ATLAS_RUNPOD_PROXY_URL", text("/runpod/proxy")));
        program.env.push(("ATLAS_FLY_LOGS_URL", text("/fly/logs")));
        let bound = |name: &str| {
            sim.ready["bounds"][name]
                .as_u64()
                .expect("a bound in milliseconds")
        };
        let config = format!(
            "default_provider = \"runpod\"\nstore = \"atlas.redb\"\n\
             [policy]\nlease_ms = 2000\nlease_renew_ms = 500\nlease_margin_ms = 200\nflush_ms = \
                 200\ntick_ms = 100\n\
             [orchestrator]\npoll_interval = {}\nreap_interval = {}\nreap_grace = {}\n\
             [accounts.runpod]\nvisibility_bound = {}\ncall_deadline = {}\ncall_interval = {}\n",
            bound("poll_interval_ms"),
            bound("reap_interval_ms"),
            bound("grace_ms"),
            bound("visibility_bound_ms"),
            bound("call_deadline_ms"),
            bound("call_interval_ms"),
        );
        std::fs::write(program.path().join("atlas.toml"), config)
            .expect("the configuration is written");
        program
    }

    /// With a key on each simulated cloud, and an account on the mock.
    pub(crate) fn on_all(sim: &Sim) -> Self {
        let mut program = Self::on(sim);
        let text = |path: &str| {
            sim.ready
                .pointer(path)
                .and_then(Value::as_str)
                .expect("the ready line has it")
                .to_owned()
        };
        let mut set = |name, value: String| program.env.push((name, value));
        for (key, url, path) in [
            ("FLY_API_TOKEN", "ATLAS_FLY_URL", "/fly/machines"),
            ("LAMBDA_API_KEY", "ATLAS_LAMBDA_URL", "/lambda"),
            ("VAST_API_KEY", "ATLAS_VAST_URL", "/vast"),
        ] {
            set(key, "sim-key".to_owned());
            set(url, text(path));
        }
        let file = program.path().join("atlas.toml");
        let config = std::fs::read_to_string(&file).expect("the configuration was written");
        let paced = |cloud| {
            format!(
                "[accounts.{cloud}]\ncall_interval = {}\n",
                sim.ready["bounds"]["call_interval_ms"]
            )
        };
        let more = [
            "[accounts.mock]\n".to_owned(),
            paced("lambda"),
            paced("vast"),
        ]
        .concat();
        std::fs::write(file, config + &more).expect("the configuration is written");
        program
    }

    /// The value of a variable in the program's environment.
    pub(crate) fn variable(&self, wanted: &str) -> &str {
        let mut set = self.env.iter();
        let (_, value) = set.find(|(name, _)| *name == wanted).expect("it is set");
        value
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atlas"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(&mut self.command(args))
    }
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the program starts");
    Ran {
        code: output.status.code().expect("it ended by itself"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Simulated clouds, served by the program itself.
pub(crate) struct Sim {
    child: Child,
    ready: Value,
}

impl Sim {
    /// So many times as fast as time.
    pub(crate) fn start(speed: &str) -> Self {
        Self::with(&["--speed", speed], Path::new("."))
    }

    /// Starts the program with these arguments.
    pub(crate) fn with(args: &[&str], dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_atlas"))
            .arg("sim")
            .args(args)
            .current_dir(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the simulator starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output is piped");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("it says that it is ready");
        let ready = serde_json::from_str(&line).expect("one JSON line");
        Self { child, ready }
    }

    /// How many machines its clouds have running.
    pub(crate) fn live(&self) -> u64 {
        let admin = self.ready["admin"].as_str().expect("it says where");
        let address = admin.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(address).expect("it listens");
        let ask = "GET /ledger HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).expect("it is asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (from, to) = (answer.find('{'), answer.rfind('}'));
        let body = &answer[from.expect("JSON")..=to.expect("JSON")];
        let ledger: Value = serde_json::from_str(body).expect("a ledger");
        let clouds = ledger["clouds"].as_object().expect("clouds");
        clouds
            .values()
            .filter_map(|cloud| cloud["live"].as_u64())
            .sum()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
