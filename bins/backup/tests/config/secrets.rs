//! Secrets that a service keeps: their versions are in the set, their values nowhere.

use std::fs;

use age::secrecy::ExposeSecret as _;
use backstay_testkit::s3::Moto;
use serde_json::Value;

use crate::support::{Bench, files, until};
use crate::{object, shell};

const VALUE: &str = "correct-horse-7-battery";
const ALONE: [&str; 2] = ["--config", "own.toml"];

/// A server with a secret, and a configuration that names it.
fn scene() -> (Bench, Moto) {
    let moto = Moto::start().unwrap_or_else(|missing| panic!("{missing}"));
    moto.python(&format!("client('secretsmanager').create_secret(Name='db', SecretString='{VALUE}')"))
        .unwrap();
    let mut bench = Bench::new();
    let key = age::x25519::Identity::generate();
    bench.write_secret("key.txt", key.to_string().expose_secret());
    fs::create_dir(bench.path("etc")).unwrap();
    bench.write("etc/app.conf", "listen = 80\n");
    bench.write_secret("etc/db.password", VALUE);
    bench.write(
        "own.toml",
        &format!(
            "[[repository]]\npath = \"local\"\n[encryption]\nrecipients = [\"{}\"]\nallow-single-recipient = true\n\
             [files]\npaths = [\"etc\"]\n[[files.secret]]\nfile = \"etc/db.password\"\nsecrets-manager = \"db\"\n",
            key.to_public()
        ),
    );
    reach(&mut bench, &moto, "id", "key");
    (bench, moto)
}

fn reach(bench: &mut Bench, moto: &Moto, id: &str, key: &str) {
    bench.set("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto.endpoint());
    bench.set("AWS_REGION", "us-east-1");
    bench.set("AWS_EC2_METADATA_DISABLED", "true");
    bench.set("AWS_ACCESS_KEY_ID", id);
    bench.set("AWS_SECRET_ACCESS_KEY", key);
}

fn recorded(bench: &Bench) -> Value {
    let stored = object(bench, "secrets.json").display().to_string();
    let text = shell(&format!("age -d -i key.txt '{stored}' | zstd -d"), &bench.path(""));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_version_in_use_is_stored_and_the_value_is_not() {
    let (bench, moto) = scene();
    let version =
        moto.python("print(client('secretsmanager').describe_secret(SecretId='db')['VersionIdsToStages'])");
    let args = [&ALONE[..], &["--log-level", "trace"]].concat();
    let (ended, report) = bench.json("backup-config", &args);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!((&report["secrets"], &report["complete"]), (&1.into(), &true.into()));
    let document = recorded(&bench);
    let secret = &document["secrets"][0];
    assert_eq!((&document["format"], &secret["id"]), (&1.into(), &"db".into()));
    assert!(version.unwrap().contains(secret["version"].as_str().unwrap()), "{document}");
    assert!(secret["file"].as_str().unwrap().ends_with("/etc/db.password"), "{document}");
    // Neither in what it says, nor in any object; the file is not in the archive, although its folder is listed.
    assert!(!format!("{ended:?}").contains(VALUE));
    for path in
        files(&bench.path("local")).iter().filter(|path| path.extension().is_some_and(|end| end == "age"))
    {
        let script = format!("age -d -i key.txt '{}' | zstd -d", path.display());
        let content = shell(&script, &bench.path(""));
        assert!(!content.contains(VALUE), "{}", path.display());
        assert!(!path.to_string_lossy().contains("files.tar") || !content.contains("db.password"));
    }
    // A rotation is a change.
    until(|| bench.run("backup-config", &ALONE).expect(0).stdout.starts_with("unchanged since set "));
    moto.python("client('secretsmanager').put_secret_value(SecretId='db', SecretString='rotated')").unwrap();
    let after = bench.run("backup-config", &ALONE).expect(0).stdout;
    assert!(after.contains("1 of its secrets is kept elsewhere; its version in use is noted"), "{after}");
}

#[test]
fn a_role_that_may_only_describe_suffices_and_a_refusal_makes_the_set_incomplete() {
    let (mut bench, moto) = scene();
    let keys = moto
        .python(
            "import json, urllib.request\niam = client('iam')\nfor user, action in [('describer', 'secretsmanager:DescribeSecret'), \
             ('nobody', 's3:GetObject')]:\n    iam.create_user(UserName=user)\n    iam.put_user_policy(UserName=user, \
             PolicyName='p', PolicyDocument=json.dumps({'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', \
             'Action': action, 'Resource': '*'}]}))\n    key = iam.create_access_key(UserName=user)['AccessKey']\n    \
             print(key['AccessKeyId'], key['SecretAccessKey'])\nurllib.request.urlopen(urllib.request.Request(endpoint + \
             '/moto-api/reset-auth', data=b'0', method='POST', headers={'Content-Type': 'application/octet-stream'}))",
        )
        .unwrap();
    let keys: Vec<(&str, &str)> = keys.lines().map(|line| line.split_once(' ').unwrap()).collect();
    reach(&mut bench, &moto, keys[0].0, keys[0].1);
    bench.run("backup-config", &ALONE).expect(0);
    reach(&mut bench, &moto, keys[1].0, keys[1].1);
    let refused = bench.run("backup-config", &ALONE).expect(3).stdout;
    assert!(refused.starts_with("incomplete set "), "{refused}");
    assert!(
        refused.contains("/etc/db.password: the version of its secret is unknown: cannot get secret db: "),
        "{refused}"
    );
    // The rest of it is stored all the same, and a service that is away is no reason for less.
    bench.set("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1");
    let away = bench.run("backup-config", &ALONE).expect(3).stdout;
    assert!(away.contains("the version of its secret is unknown: "), "{away}");
}
