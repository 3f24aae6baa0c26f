//! Runs the programs the way cron does: by their path, with almost no environment.

use std::any::Any;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use backstay_testkit::TestPostgres;
use serde_json::Value;

use super::path;

/// A folder and the environment in which programs run.
pub struct Bench {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
    kept: Vec<Box<dyn Any>>,
    wrapper: Vec<String>,
}

/// What a program left.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        // A server that is tested into may run under another account.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // A file of its own, so that the one of the machine is never read.
        std::fs::write(folder.path().join("backstay.toml"), "").unwrap();
        Self { folder, variables: Vec::new(), kept: Vec::new(), wrapper: Vec::new() }
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Runs programs through another one, such as `prlimit`.
    pub fn wrap<W: AsRef<str>>(&mut self, wrapper: &[W]) {
        self.wrapper = wrapper.iter().map(|word| word.as_ref().to_owned()).collect();
    }

    /// Makes a folder, with what is in it, one that programs cannot write to, root's included.
    pub fn make_unwritable(&mut self, below: &str) {
        self.forbid(below, "a-w");
    }

    /// Makes a folder one that programs can neither read nor write.
    pub fn make_unreadable(&mut self, below: &str) {
        self.forbid(below, "a-rwx");
    }

    fn forbid(&mut self, below: &str, what: &str) {
        let folder = self.path(below);
        std::fs::create_dir_all(&folder).unwrap();
        assert!(Command::new("chmod").args(["-R", what]).arg(&folder).status().unwrap().success());
        if backstay_testkit::Account::for_servers().unwrap().is_some() {
            // Root without its right to overrule permissions.
            self.wrap(&["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]);
        }
        self.keep(Forbidden(folder));
    }

    /// Makes a folder a disk of that size. False where this process has no right to.
    pub fn make_disk(&mut self, below: &str, size: &str) -> bool {
        let folder = self.path(below);
        std::fs::create_dir_all(&folder).unwrap();
        let options = format!("size={size},mode=755");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if mounted {
            self.keep(Mounted(folder));
        }
        mounted
    }

    /// Makes a folder a disk that has no room for a backup.
    pub fn make_full(&mut self, below: &str) {
        if !self.make_disk(below, "256k") {
            // Without the right to mount, a limit on file sizes has to stand in.
            self.wrap(&["prlimit", "--fsize=200000", "--", "env", "--ignore-signal=XFSZ"]);
        }
    }

    /// Moves a repository to a disk on which not one byte more can be written.
    pub fn fill_disk_of(&mut self, repository: &str) {
        let aside = format!("{repository}-moved");
        std::fs::rename(self.path(repository), self.path(&aside)).unwrap();
        if self.make_disk(repository, "8m") {
            let copied = Command::new("cp")
                .arg("-a")
                .arg(self.path(&aside).join("."))
                .arg(self.path(repository))
                .status();
            assert!(copied.unwrap().success());
            std::fs::remove_dir_all(self.path(&aside)).unwrap();
            let _ = std::fs::write(self.path(repository).join(".filler"), vec![0; 8 << 20]);
        } else {
            std::fs::remove_dir(self.path(repository)).unwrap();
            std::fs::rename(self.path(&aside), self.path(repository)).unwrap();
            self.wrap(&["prlimit", "--fsize=0", "--", "env", "--ignore-signal=XFSZ"]);
        }
    }

    /// Copies files and folders of another one, times included.
    pub fn copy_from(&self, other: &Self, names: &[&str]) {
        for name in names {
            let copied = Command::new("cp").arg("-a").arg(other.path(name)).arg(self.path("")).status();
            assert!(copied.unwrap().success(), "{name}");
        }
    }

    /// The only manifest of a repository.
    pub fn manifest(&self, repository: &str) -> PathBuf {
        let mut found = files(&self.path(repository));
        found.retain(|path| path.ends_with("manifest.json"));
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    /// The id of the only set of a repository.
    pub fn only_set(&self, repository: &str) -> String {
        let manifest = self.manifest(repository);
        manifest.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Lets programs reach a server.
    pub fn reach(&mut self, server: &TestPostgres, database: &str) {
        self.url(server.url(database));
        self.set("BACKSTAY_POSTGRES_BIN_DIR", server.install().bin().display().to_string());
    }

    /// Says which server and database.
    pub fn url(&mut self, url: impl Into<String>) {
        self.set("BACKSTAY_POSTGRES_URL", url);
    }

    /// Keeps something alive as long as the folder.
    pub fn keep(&mut self, something: impl Any) {
        self.kept.push(Box::new(something));
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Writes a file that only its owner reads.
    pub fn write_secret(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, content);
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn command<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> Command {
        let mut words = self.wrapper.iter().map(String::as_str).chain([path(program)]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("BACKSTAY_CONFIG", "backstay.toml")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> Ended {
        self.command(program, args).output().unwrap().into()
    }

    /// Runs with `--json` and gives its one object too.
    pub fn json(&self, program: &str, args: &[&str]) -> (Ended, Value) {
        let ended = self.run(program, &[args, &["--json"]].concat());
        assert_eq!(ended.stdout.lines().count(), 1, "exactly one object: {ended:?}");
        let value = serde_json::from_str(&ended.stdout).unwrap();
        (ended, value)
    }
}

struct Forbidden(PathBuf);

impl Drop for Forbidden {
    fn drop(&mut self) {
        // Or the folder could not be removed.
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(&self.0).status();
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Ended {
    /// Asserts the exit code, showing everything when it differs.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<_> = entries
        .flatten()
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect();
    all.sort();
    all
}

/// Changes one bit in the middle of a file.
pub fn flip_a_bit(path: &Path) {
    let mut content = Vec::new();
    std::fs::File::open(path).unwrap().read_to_end(&mut content).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What is kept may lie in the folder, such as a mounted disk.
        self.kept.clear();
    }
}

/// Looks again until it holds, for minutes: machines may be busy.
#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < std::time::Duration::from_secs(300), "timed out");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
