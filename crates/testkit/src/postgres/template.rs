//! New clusters without running `initdb` each time.
//!
//! `initdb` takes one to two seconds of CPU time; a copy of a ready cluster takes a tenth of that. Templates are kept
//! in the cache directory per version, options and account. A copy gets a **system identifier of its own**, because
//! clusters that share one cannot be told apart by an archive, and tests would pass that should not.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::SUPERUSER;
use super::install::{PostgresInstall, run};
use super::options::PostgresOptions;
use crate::ports::random_bytes;
use crate::{Account, Error, Result, ScratchDir, cache};

/// What a new cluster is made of.
pub(super) struct Cluster<'a> {
    pub(super) install: &'a PostgresInstall,
    pub(super) options: &'a PostgresOptions,
    pub(super) account: Option<&'a Account>,
}

/// The superuser's password in every template; a started server has changed it before anybody gets its handle.
pub(super) const TEMPLATE_PASSWORD: &str = "changed-before-use";

/// Counted up when templates are made in another way, so that older ones are no longer used.
const TEMPLATE_FORMAT: u32 = 1;

impl Cluster<'_> {
    /// Makes a cluster at `target`, which must not exist, in a directory that the account may write.
    pub(super) fn create(&self, scratch: &ScratchDir, target: &Path) -> Result<()> {
        if !self.install.has("pg_resetwal") {
            return self.initdb(scratch, target);
        }
        let templates = cache::create("templates", self.account)?;
        let template = templates.join(self.key()?);
        if !template.is_dir() {
            self.add_template(scratch, &templates, &template)?;
        }
        copy(&template, target)?;
        self.renew_identity(target)
    }

    /// Everything that makes two new clusters differ, as a file name.
    fn key(&self) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        let options = self.options;
        (TEMPLATE_FORMAT, self.install.bin(), self.install.version()?, self.account.map(Account::uid))
            .hash(&mut hasher);
        (&options.locale, &options.encoding, &options.initdb_args, options.data_checksums).hash(&mut hasher);
        Ok(format!("{}-{:016x}", self.install.major(), hasher.finish()))
    }

    fn add_template(&self, scratch: &ScratchDir, templates: &Path, template: &Path) -> Result<()> {
        let lock_path = templates.join(".lock");
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        lock.lock().map_err(Error::io("lock", &lock_path))?;
        if template.is_dir() {
            return Ok(());
        }
        let fresh = scratch.path().join("template");
        self.initdb(scratch, &fresh)?;
        // Under the lock nobody else writes here; a leftover is of a run that was killed.
        let incoming = templates.join(".incoming");
        remove_if_there(&incoming)?;
        copy(&fresh, &incoming)?;
        fs::rename(&incoming, template).map_err(Error::io("rename", &incoming))?;
        remove_if_there(&fresh)
    }

    fn initdb(&self, scratch: &ScratchDir, target: &Path) -> Result<()> {
        let password_file = scratch.path().join("initdb-password");
        fs::write(&password_file, TEMPLATE_PASSWORD).map_err(Error::io("write", &password_file))?;
        if let Some(account) = self.account {
            account.give(&password_file)?;
        }
        let mut command = Command::new(self.install.bin().join("initdb"));
        command.arg("-D").arg(target).args(["--no-sync", "--username", SUPERUSER]);
        command.args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]);
        command.arg("--pwfile").arg(&password_file);
        command.args(["--locale", &self.options.locale, "--encoding", &self.options.encoding]);
        match (self.options.data_checksums, self.install.major()) {
            (true, _) => _ = command.arg("--data-checksums"),
            (false, 18..) => _ = command.arg("--no-data-checksums"),
            (false, _) => {}
        }
        command.args(&self.options.initdb_args);
        self.run_as_account(command)?;
        fs::remove_file(&password_file).map_err(Error::io("remove", &password_file))
    }

    /// Writes a random system identifier, the first eight bytes of the control file in every version, then has
    /// `pg_resetwal` compute the file's checksum anew and start a WAL of that identity. It distrusts a control file
    /// whose checksum is wrong, hence the force; all other values in it are good.
    fn renew_identity(&self, data: &Path) -> Result<()> {
        let mut identity = [0; 8];
        random_bytes(&mut identity)?;
        // Real identifiers begin with the time; keep the sign bit clear, as they do.
        identity[7] &= 0x7f;
        let control = data.join("global/pg_control");
        let write = || -> std::io::Result<()> {
            let mut file = File::options().write(true).open(&control)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&identity)
        };
        write().map_err(Error::io("write", &control))?;
        let mut command = Command::new(self.install.bin().join("pg_resetwal"));
        command.arg("--force").arg("-D").arg(data);
        self.run_as_account(command)
    }

    fn run_as_account(&self, mut command: Command) -> Result<()> {
        command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC").env_remove("PGDATA");
        let mut command = self.account.map(|account| account.wrap(&command)).unwrap_or(command);
        run(&mut command).map(drop)
    }
}

/// Copies a tree with owners and modes; shares the blocks where the file system can.
fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to)).map(drop)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Gives an existing data directory to the account with the mode PostgreSQL insists on.
pub(super) fn adopt(data: &Path, account: Option<&Account>) -> Result<PathBuf> {
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(Error::io("protect", data))?;
    if let Some(account) = account {
        let owner = format!("{}:{}", account.uid(), account.gid());
        run(Command::new("chown").args(["-R", "--", &owner]).arg(data))?;
    }
    Ok(data.to_owned())
}
