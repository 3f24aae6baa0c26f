//! Secrets are fetched again: in the version of the set or the present one, into private files, or nothing is installed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use backstay_backup_core::secret::Secret;
use backstay_file_ops::secret_files::{SecretFile, versions};
use backstay_storage_s3::Credentials;
use backstay_storage_s3::secrets_manager::{SecretsManagerOptions, SecretsManagerSource};
use backstay_testkit::s3::Moto;

use crate::support::{Bench, Moments, files};
use crate::{COMMON, etc, in_a_folder, prepare};

const OLD: &str = "correct-horse-7-battery";
const NEW: &str = "staple-9-of-another-kind";

/// A set that names a secret, which was rotated since. The file is gone.
fn scene() -> (Bench, Moto) {
    let moto = Moto::start().unwrap_or_else(|missing| panic!("{missing}"));
    let value = format!("{{\"user\": \"app\", \"password\": \"{OLD}\"}}");
    moto.python(&format!("client('secretsmanager').create_secret(Name='db', SecretString='{value}')"))
        .unwrap();
    let mut bench = Bench::new();
    let mut options = prepare(&bench);
    let file = etc(&bench).join("app/db.password");
    bench.write_secret("etc/app/db.password", OLD);
    options.selection.left_out = vec![file.clone()];
    let secrets = [SecretFile::new(file, "db", Some("password".to_owned()))];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    (options.secrets, options.problems) =
        runtime.block_on(async { versions(&source(&moto).await, &secrets).await });
    assert_eq!((options.secrets.len(), options.problems.len()), (1, 0), "{:?}", options.problems);
    in_a_folder(&bench, &options);
    fs::remove_file(bench.path("etc/app/db.password")).unwrap();
    rotate(&moto);
    reach(&mut bench, moto.endpoint(), "id", "key");
    (bench, moto)
}

async fn source(moto: &Moto) -> SecretsManagerSource {
    let credentials = Credentials::Static {
        access_key_id: "id".to_owned(),
        secret_access_key: Secret::new("key".to_owned()),
        session_token: None,
    };
    let options = SecretsManagerOptions::default().endpoint(moto.endpoint()).region("us-east-1");
    SecretsManagerSource::open(options.credentials(credentials)).await.unwrap()
}

fn rotate(moto: &Moto) {
    let value = format!("{{\"user\": \"app\", \"password\": \"{NEW}\"}}");
    moto.python(&format!("client('secretsmanager').put_secret_value(SecretId='db', SecretString='{value}')"))
        .unwrap();
}

fn reach(bench: &mut Bench, endpoint: &str, id: &str, key: &str) {
    bench.set("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint);
    bench.set("AWS_REGION", "us-east-1");
    bench.set("AWS_EC2_METADATA_DISABLED", "true");
    bench.set("AWS_ACCESS_KEY_ID", id);
    bench.set("AWS_SECRET_ACCESS_KEY", key);
}

const STAGING: [&str; 2] = ["--staging", "staging"];

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&COMMON[..], &STAGING, more].concat()
}

/// Every file below a folder that holds one of the values.
fn with_values(folder: &Path) -> Vec<std::path::PathBuf> {
    let holds = |path: &std::path::PathBuf| {
        let content = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        content.contains(OLD) || content.contains(NEW)
    };
    files(folder).into_iter().filter(holds).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_secret_comes_back_private_in_the_version_of_the_set_and_is_told_nowhere() {
    let (mut bench, _moto) = scene();
    bench.wrap(&["bash", "-c", "umask 0; exec \"$0\" \"$@\""]);
    let file = etc(&bench).join("app/db.password");
    let named = bench.run("restore-config", &args(&[])).expect(0).stdout;
    assert!(
        named.contains("\n- a service keeps 1 of its secrets; --secrets fetches what it keeps"),
        "{named}"
    );
    let planned =
        bench.run("restore-config", &args(&["--secrets", "--diff", "--log-level", "trace"])).expect(0);
    assert!(
        planned.stdout.contains(&format!("\n+ {} (a secret, fetched)", file.display())),
        "{}",
        planned.stdout
    );
    assert!(!format!("{planned:?}").contains(OLD) && !file.exists());
    let staged = with_values(&bench.path("staging"));
    assert_eq!(staged.len(), 1);
    assert_eq!((mode(&staged[0]), mode(&bench.path("staging"))), (0o600, 0o700));

    let applied =
        bench.run("restore-config", &args(&["--secrets", "--apply", "--log-level", "trace"])).expect(0);
    assert!(!format!("{applied:?}").contains(OLD));
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), (OLD, 0o600));
    let owner = fs::metadata(bench.path("etc/app/main.conf")).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().uid(), owner.uid());
    assert!(with_values(&bench.path("staging")).is_empty(), "a value stays behind in the staging folder");

    // The present one, over the old one; its length and its lines are nobody's business, and it can be taken back.
    let current = args(&["--secrets=current", "--apply", "--diff", file.to_str().unwrap()]);
    let said = bench.run("restore-config", &current).expect(0).stdout;
    assert!(said.contains(" (a secret, fetched; content)"), "{said}");
    assert!(!said.contains(NEW) && !said.contains(OLD), "{said}");
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), (NEW, 0o600));
    let undo = said.split("--undo ").nth(1).unwrap().trim();
    bench.run("restore-config", &["--undo", undo]).expect(0);
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), (OLD, 0o600));
}

#[test]
fn a_version_that_is_gone_a_refusal_and_a_silent_service_install_nothing() {
    let (bench, moto) = scene();
    bench.write("etc/app/main.conf", "listen = 8080\n");
    let file = bench.path("etc/app/db.password");
    let untouched = |ended: &crate::support::Ended| {
        let live = fs::read_to_string(bench.path("etc/app/main.conf")).unwrap();
        assert!(live == "listen = 8080\n" && !file.exists(), "{ended:?}");
        assert!(!format!("{ended:?}").contains(OLD) && !format!("{ended:?}").contains(NEW));
    };
    let apply = args(&["--secrets", "--apply"]);
    let recreated = format!(
        "sm = client('secretsmanager')\nsm.delete_secret(SecretId='db', ForceDeleteWithoutRecovery=True)\n\
         sm.create_secret(Name='db', SecretString='{{\"password\": \"{NEW}\"}}')"
    );
    moto.python(&recreated).unwrap();
    let gone = bench.run("restore-config", &apply).expect(2);
    untouched(&gone);
    assert!(gone.stderr.contains("db.password: secret db is not there: "), "{}", gone.stderr);
    assert!(
        gone.stderr.contains("\nhint: nothing was installed; --secrets=current takes"),
        "{}",
        gone.stderr
    );

    let keys = moto
        .python(
            "import urllib.request\niam = client('iam')\niam.create_user(UserName='nobody')\n\
             key = iam.create_access_key(UserName='nobody')['AccessKey']\nprint(key['AccessKeyId'], key['SecretAccessKey'])\n\
             urllib.request.urlopen(urllib.request.Request(endpoint + '/moto-api/reset-auth', data=b'0', method='POST', headers={'Content-Type': 'application/octet-stream'}))",
        )
        .unwrap();
    let (id, key) = keys.split_once(' ').unwrap();
    let mut denied = Bench::new();
    denied.copy_from(&bench, &["local", "key.txt"]);
    reach(&mut denied, moto.endpoint(), id, key);
    let refused = denied.run("restore-config", &apply).expect(2);
    untouched(&refused);
    assert!(refused.stderr.contains("cannot get secret db: "), "{}", refused.stderr);
    assert!(files(&denied.path("etc")).is_empty());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    reach(&mut denied, &closed, "id", "key");
    untouched(&denied.run("restore-config", &apply).expect(5));

    // Without the secret the rest is installed.
    bench.run("restore-config", &args(&["--apply"])).expect(0);
    assert_eq!(fs::read_to_string(bench.path("etc/app/main.conf")).unwrap(), "listen = 80\n");
}

#[test]
fn a_killed_installation_leaves_the_old_secret_or_the_new_one_and_never_a_readable_one() {
    let rounds = if std::env::var_os("BACKSTAY_SOAK").is_some() { 150 } else { 12 };
    let (mut bench, _moto) = scene();
    bench.wrap(&["bash", "-c", "umask 0; exec \"$0\" \"$@\""]);
    let file = etc(&bench).join("app/db.password");
    let apply = args(&["--secrets=current", "--apply"]);
    let mut moments = Moments::new(11, Duration::from_millis(800));
    let (mut old, mut new) = (0, 0);
    for _ in 0..rounds {
        bench.write_secret("etc/app/db.password", OLD);
        let begun = Instant::now();
        let mut child =
            bench.command("restore-config", &apply).stdout(std::process::Stdio::null()).spawn().unwrap();
        moments.kill(&mut child, begun);
        match fs::read_to_string(&file).unwrap().as_str() {
            OLD => old += 1,
            NEW => new += 1,
            other => panic!("torn: {} bytes", other.len()),
        }
        let found = [with_values(&bench.path("staging/files")), with_values(&bench.path("etc"))].concat();
        assert!(found.iter().all(|path| mode(path) == 0o600), "{found:?}");
    }
    bench.run("restore-config", &apply).expect(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), NEW);
    let left = fs::read_dir(bench.path("etc/app")).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".backstay")).collect();
    assert!(left.is_empty(), "{left:?}");
    println!("{moments}; {old} times the old secret, {new} times the new one");
    assert!(moments.kills() > 0);
}
