use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::secret::SecretRef;

const EVERYTHING: &str = include_str!("testdata/everything.toml");
const KEY_A: &str = "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq";
const KEY_B: &str = "age1qgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpq0sxkqm";

fn file(text: &str) -> ConfigFile {
    ConfigFile { path: PathBuf::from("/etc/backstay/backstay.toml"), text: text.to_owned() }
}

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn set(pairs: &[(&str, &str)]) -> Flags {
    let settings = pairs.iter().map(|(key, value)| Setting::new(key, *value, "--option")).collect();
    Flags { settings, ..Flags::default() }
}

fn named(repositories: &[&str]) -> Flags {
    Flags { repositories: repositories.iter().map(|text| (*text).to_owned()).collect(), ..Flags::default() }
}

fn load(text: &str) -> Result<Loaded, ConfigError> {
    Config::load(Some(&file(text)), &BTreeMap::new(), &Flags::default())
}

fn refusal(text: &str) -> String {
    load(text).unwrap_err().to_string().replace("/etc/backstay/", "")
}

fn flag_refusal(flags: &Flags) -> String {
    Config::load(None, &BTreeMap::new(), flags).unwrap_err().to_string()
}

#[test]
fn nothing_at_all_is_a_valid_configuration() {
    let loaded = Config::load(None, &BTreeMap::new(), &Flags::default()).unwrap();
    assert_eq!(loaded.config.stanza.as_str(), "main");
    assert_eq!(loaded.config.quorum, 1);
    assert_eq!(loaded.config.repository, []);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn the_full_example_is_accepted_without_a_warning() {
    let loaded = load(EVERYTHING).unwrap();
    assert_eq!(loaded.warnings, []);
    let [local, offsite] = loaded.config.repository.as_slice() else { panic!("two repositories") };
    assert!(matches!(local.place(), Place::Directory(path) if path == Path::new("/var/lib/backstay")));
    let Place::S3(s3) = offsite.place() else { panic!("a bucket") };
    assert_eq!(s3.sse, Some(Sse::AwsKms));
    assert_eq!(offsite.limits.bytes_per_second, Some(ByteSize(20 << 20)));
    assert_eq!(offsite.retention.keep_within, Some(TimeSpan::from_secs(90 * 86_400)));
    assert_eq!(local.retention.keep_within, Some(TimeSpan::from_secs(30 * 86_400)));
}

#[test]
fn misspelt_keys_are_refused_with_line_and_nearest_key() {
    let cases = [
        (
            "stanza = \"a\"\n\n[[repositry]]\npath = \"x\"",
            "unknown key `repositry` at line 3 of backstay.toml: did you mean `repository`?",
        ),
        (
            "[compression]\ncodec = \"zstd\"\nlevl = 3",
            "unknown key `compression.levl` at line 3 of backstay.toml: did you mean `compression.level`?",
        ),
        (
            "[[repository]]\nname = \"off\"\ns3 = { bucket = \"b\", pathstyle = true }",
            "unknown key `repository.off.s3.pathstyle` at line 3 of backstay.toml: \
             did you mean `repository.off.s3.path-style`?",
        ),
        ("colour = 1", "unknown key `colour` at line 1 of backstay.toml"),
        (
            "[postgres]\npassword = { environment = \"X\" }",
            "unknown key `postgres.password.environment` at line 2 of backstay.toml",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(refusal(text), message);
    }
}

#[test]
fn bad_values_are_refused_with_their_line() {
    let cases = [
        (
            "stanza = \"a/b\"",
            "bad value of `stanza` at line 1 of backstay.toml: invalid stanza \"a/b\": use 1 to 64 letters, digits, \
             '_', '-' and '.', beginning with a letter or digit",
        ),
        (
            "[retention]\nkeep-within = 30",
            "bad value of `retention.keep-within` at line 2 of backstay.toml: it has no unit: write \"30d\" or \"30h\"",
        ),
        (
            "[retention]\nkeep-within = \"30 days\"",
            "bad value of `retention.keep-within` at line 2 of backstay.toml: \"30 days\" is no span of time: write \
             whole numbers with s, m, h, d or w, such as 90m or 30d",
        ),
        (
            "[retention]\nkeep-last = 0",
            "bad value of `retention.keep-last` at line 2 of backstay.toml: 0 is out of range: it must be at least 1",
        ),
        (
            "[compression]\nlevel = 99",
            "bad value of `compression.level` at line 2 of backstay.toml: 99 is out of range: it must be from -7 to 19",
        ),
        (
            "[compression]\nlevel = \"3\"",
            "bad value of `compression.level` at line 2 of backstay.toml: expected a whole number, found a text",
        ),
        (
            "[compression]\ncodec = \"lz4\"",
            "bad value of `compression.codec` at line 2 of backstay.toml: \"lz4\" is not one of \"none\", \"zstd\", \
             \"gzip\"",
        ),
        (
            "quorum = 2\n[[repository]]\npath = \"x\"",
            "bad value of `quorum` at line 1 of backstay.toml: 2 is more than the number of repositories, 1",
        ),
        (
            "[[repository]]\nname = \"x\"",
            "bad value of `repository` at line 1 of backstay.toml: it has neither `path` nor `s3`",
        ),
        (
            "[[repository]]\npath = \"x\"\n[[repository]]\npath = \"x\"",
            "bad value of `repository` at line 3 of backstay.toml: two sections are called \"x\": give each a `name`",
        ),
        (
            "[postgres]\nurl = \"mysql://x\"",
            "bad value of `postgres.url` at line 2 of backstay.toml: write it as postgresql://user@host:port/database",
        ),
        (
            "[encryption]\nrecipients = [\n  \"AGE-SECRET-KEY-1\"]",
            "bad value of `encryption.recipients` at line 3 of backstay.toml: this is a private key: take the public \
             one, which begins with age1",
        ),
        (
            "[[repository]]\n[repository.s3]\nbucket = \"b\"\nkms-key = \"k\"",
            "bad value of `repository.s3://b.s3.kms-key` at line 4 of backstay.toml: it needs sse = \"aws:kms\"",
        ),
        (
            "[[repository]]\n[repository.s3]\n",
            "`repository.repository.s3.bucket` is missing: an s3 repository needs the name of its bucket",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(refusal(text), message);
    }
}

#[test]
fn broken_toml_names_its_line() {
    let message = refusal("stanza = \"a\"\nquorum = = 2\n");
    assert!(
        message.starts_with("configuration file backstay.toml is not valid TOML at line 2: "),
        "{message}"
    );
}

#[test]
fn a_single_recipient_has_to_be_meant() {
    let one = format!("[encryption]\nrecipients = [\"{KEY_A}\"]\n");
    assert!(refusal(&one).contains("every backup is lost when its key is lost"));
    assert!(load(&format!("{one}allow-single-recipient = true")).is_ok());
    let two = format!("[encryption]\nrecipients = [\"{KEY_A}\", \"{KEY_B}\"]");
    assert_eq!(load(&two).unwrap().config.encryption.recipients.len(), 2);
}

#[test]
fn flags_win_over_environment_and_environment_over_the_file() {
    let file = file("[compression]\nlevel = 1\nworkers = 1\n[limits]\nconcurrency = 1");
    let environment = environment(&[
        ("BACKSTAY_COMPRESSION_WORKERS", "2"),
        ("BACKSTAY_LIMITS_CONCURRENCY", "2"),
        ("BACKSTAY_STANZA", ""),
    ]);
    let flags = set(&[("limits.concurrency", "9"), ("limits.concurrency", "3")]);
    let config = Config::load(Some(&file), &environment, &flags).unwrap().config;
    assert_eq!(config.compression.level, Some(1));
    assert_eq!(config.compression.workers.map(u32::from), Some(2));
    assert_eq!(config.limits.concurrency.map(u32::from), Some(3));
    assert_eq!(config.stanza.as_str(), "main", "an empty variable is an absent one");
}

#[test]
fn keys_of_a_repository_go_by_its_name() {
    let file = file("[[repository]]\nname = \"off-site\"\ns3 = { bucket = \"b\" }");
    let environment = environment(&[("BACKSTAY_REPOSITORY_OFF_SITE_S3_REGION", "eu-west-1")]);
    let flags = set(&[("repository.off-site.s3.path-style", "true")]);
    let config = Config::load(Some(&file), &environment, &flags).unwrap().config;
    let s3 = config.repository[0].s3.as_ref().unwrap();
    assert_eq!((s3.region.as_deref(), s3.path_style), (Some("eu-west-1"), true));
}

#[test]
fn flags_for_unknown_keys_are_refused() {
    assert_eq!(
        flag_refusal(&set(&[("compresion.level", "3")])),
        "unknown key `compresion.level` in --option: did you mean `compression.level`?"
    );
    assert_eq!(
        flag_refusal(&set(&[("compression.level", "high")])),
        "bad value of `compression.level` in --option: \"high\" is no whole number: write one such as 7"
    );
}

#[test]
fn misspelt_variables_are_pointed_out_and_foreign_ones_left_alone() {
    let environment =
        environment(&[("BACKSTAY_QUOROM", "2"), ("BACKSTAY_MY_PASSWORD_FOR_TESTS", "x"), ("HOME", "/")]);
    let loaded = Config::load(None, &environment, &Flags::default()).unwrap();
    let messages: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        ["environment variable BACKSTAY_QUOROM has no effect: did you mean BACKSTAY_QUORUM?"]
    );
}

#[test]
fn repositories_of_flags_replace_the_configured_ones() {
    let file = file(
        "[[repository]]\nname = \"local\"\npath = \"data\"\n[[repository]]\nname = \"far\"\npath = \"y\"",
    );
    let address = "s3://bucket/a/b/?endpoint=http%3A%2F%2F127.0.0.1:9000&path-style=true&region=us-east-1";
    let flags = named(&["local", "./backups", address]);
    let config = Config::load(Some(&file), &BTreeMap::new(), &flags).unwrap().config;
    let names: Vec<_> = config.repository.iter().map(|repository| repository.name.as_str()).collect();
    assert_eq!(names, ["local", "./backups", "s3://bucket/a/b"]);
    let paths: Vec<_> = config.repository.iter().map(|repository| repository.path.clone()).collect();
    assert_eq!(paths, [Some("/etc/backstay/data".into()), Some("./backups".into()), None]);
    let s3 = config.repository[2].s3.clone().unwrap();
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str(), s3.path_style), ("bucket", "a/b", true));
    assert_eq!(s3.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
}

#[test]
fn repositories_come_from_the_environment_too() {
    let environment = environment(&[("BACKSTAY_REPOSITORY", "/a  s3://b")]);
    let config = Config::load(None, &environment, &Flags::default()).unwrap().config;
    let names: Vec<_> = config.repository.iter().map(|repository| repository.name.as_str()).collect();
    assert_eq!(names, ["/a", "s3://b"]);
}

#[test]
fn bad_addresses_are_refused() {
    let cases = [
        ("", "it is empty"),
        (
            "gs://x",
            "gs:// is not supported: write a directory such as ./backups, or s3://bucket/prefix?region=…",
        ),
        ("s3:///x", "the bucket is missing: write s3://bucket/prefix"),
        ("s3://b?path-style", "\"path-style\" has no value"),
        ("s3://b?region=a&region=b", "region is given twice"),
        ("s3://b?endpoint=%zz", "\"%zz\" has a wrong percent sign"),
        ("s3://b?secret-access-key=x", "secret-access-key cannot be given in an address"),
        (
            "s3://key:secret@b",
            "credentials do not belong into the address: use the AWS environment, a profile, or the configuration file",
        ),
    ];
    for (text, problem) in cases {
        assert_eq!(
            flag_refusal(&named(&[text])),
            format!("bad value of `repository` in --repository: {problem}")
        );
    }
    assert_eq!(
        flag_refusal(&named(&["s3://b?reigon=x"])),
        "unknown key `repository.s3://b.s3.reigon` in --repository: did you mean `repository.s3://b.s3.region`?"
    );
    assert_eq!(
        flag_refusal(&named(&["./a", "./a"])),
        "bad value of `repository` in --repository: \"./a\" is given twice"
    );
}

#[test]
fn literal_secrets_are_accepted_with_a_warning() {
    let loaded = load("[postgres]\npassword = \"hunter2\"\nurl = \"postgresql://a:hunter2@h/d\"").unwrap();
    assert_eq!(loaded.config.postgres.password, Some(SecretRef::Literal("hunter2".to_owned())));
    let messages: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "the password in `postgres.url` at line 3 of /etc/backstay/backstay.toml stands in the file: use ~/.pgpass, \
             `passfile`, or { env = \"…\" }",
            "`postgres.password` at line 2 of /etc/backstay/backstay.toml is the secret itself: keep it outside and \
             write { file = \"…\" } or { env = \"…\" }",
        ]
    );
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn secrets_from_variables_stay_references_and_flags_may_only_refer() {
    let variables = environment(&[("BACKSTAY_POSTGRES_PASSWORD", "hunter2")]);
    let config = Config::load(None, &variables, &Flags::default()).unwrap().config;
    assert_eq!(
        config.postgres.password,
        Some(SecretRef::Env { env: "BACKSTAY_POSTGRES_PASSWORD".to_owned() })
    );
    let refers = set(&[("postgres.password", "{ file = \"pw\" }")]);
    let config = Config::load(None, &BTreeMap::new(), &refers).unwrap().config;
    assert_eq!(config.postgres.password, Some(SecretRef::File { file: "pw".into() }));
    let message = flag_refusal(&set(&[("postgres.password", "hunter2")]));
    assert!(message.contains("can be read by every user") && !message.contains("hunter2"), "{message}");
}

#[test]
fn paths_of_the_file_are_relative_to_it() {
    let config = load("[encryption]\nidentity = { file = \"keys/restore.txt\" }").unwrap().config;
    let expected = SecretRef::File { file: "/etc/backstay/keys/restore.txt".into() };
    assert_eq!(config.encryption.identity, Some(expected));
}

/// Leaf keys of the schema; items of a list or map are below `*`.
fn schema_keys(root: &Value, schema: &Value, path: &str, keys: &mut BTreeSet<String>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = reference.trim_start_matches('#');
        return schema_keys(root, root.pointer(pointer).unwrap(), path, keys);
    }
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array)
        && !path.ends_with("-key") // a reference to a secret is one value
        && let Some(object) = choices.iter().find(|choice| choice.get("$ref").is_some())
        && !object["$ref"].as_str().unwrap().ends_with("SecretRef")
    {
        return schema_keys(root, object, path, keys);
    }
    match schema.get("properties").and_then(Value::as_object) {
        None if schema.pointer("/items/$ref").is_some() => {
            schema_keys(root, &schema["items"], &format!("{path}.*"), keys);
        }
        None => drop(keys.insert(path.to_owned())),
        Some(properties) => {
            for (key, below) in properties {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                schema_keys(root, below, &path, keys);
            }
        }
    }
}

fn file_keys(value: &toml::Value, path: &str, keys: &mut BTreeSet<String>) {
    let leaf =
        ["tags", "identity", "password", "url", "access-key-id", "secret-access-key", "token", "heartbeat"];
    match value {
        toml::Value::Table(table) if !leaf.iter().any(|name| path.ends_with(name)) => {
            for (key, below) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                file_keys(below, &path, keys);
            }
        }
        toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => {
            items.iter().for_each(|item| file_keys(item, &format!("{path}.*"), keys));
        }
        _ => drop(keys.insert(path.to_owned())),
    }
}

#[test]
fn the_schema_and_the_full_example_know_the_same_keys() {
    let schema = serde_json::to_value(Config::json_schema()).unwrap();
    let (mut in_schema, mut in_example) = (BTreeSet::new(), BTreeSet::new());
    schema_keys(&schema, &schema, "", &mut in_schema);
    file_keys(&toml::from_str(EVERYTHING).unwrap(), "", &mut in_example);
    assert_eq!(in_schema, in_example);
}

#[test]
fn the_committed_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.schema.json");
    let current = serde_json::to_string_pretty(&Config::json_schema()).unwrap() + "\n";
    if std::env::var_os("BACKSTAY_UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == current,
        "run this test with BACKSTAY_UPDATE_SCHEMA=1 and commit docs/config.schema.json"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC*", address in "(s3://)?\\PC{0,30}") {
        let _ = load(&text);
        let _ = Config::load(None, &BTreeMap::new(), &named(&[&address]));
    }

    #[test]
    fn a_changed_letter_in_a_key_never_passes_unseen(at in 0_usize..2000, letter in "[a-z]") {
        // Any single letter of a key replaced by another gives an error, never a silently ignored key.
        let keys: Vec<usize> = EVERYTHING
            .match_indices(" = ")
            .filter(|(end, _)| !in_table_of_names(*end))
            .map(|(end, _)| end)
            .collect();
        let end = keys[at % keys.len()];
        let old = EVERYTHING.as_bytes()[end - 1];
        prop_assume!(old != letter.as_bytes()[0] && old.is_ascii_alphabetic());
        let changed = format!("{}{letter}{}", &EVERYTHING[..end - 1], &EVERYTHING[end..]);
        prop_assert!(load(&changed).is_err(), "{}", &changed[end.saturating_sub(20)..end + 5]);
    }
}

/// Whether the key that ends there is free text: a comment, or a tag.
fn in_table_of_names(end: usize) -> bool {
    let line = EVERYTHING[..end].rsplit('\n').next().unwrap_or_default();
    line.starts_with('#') || line.starts_with("tags = {") || EVERYTHING[..end].ends_with("name")
}
