//! AWS SNS against an independent implementation, and against a service that does what AWS does on bad days.
#![cfg(feature = "sns")]
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backstay_backup_core::secret::Secret;
use backstay_notify::Kind;
use backstay_notify::channel::http::{self, Client};
use backstay_notify::channel::sns::{Sns, Target};
use backstay_testkit::s3::moto_server;
use backstay_testkit::{Answer, HttpSink, Received};
use peers::{deliver, name, notice};
use serde_json::Value;

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:on-call";

/// A server of AWS's interfaces, from `scripts/setup-moto.sh`; gone when dropped.
struct Moto {
    child: Child,
    endpoint: String,
}

impl Moto {
    fn start() -> Self {
        let program = moto_server().unwrap_or_else(|missing| panic!("{missing}"));
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let endpoint = lines.by_ref().find_map(|line| {
            let at = line.find("http://127.0.0.1:")?;
            Some(line[at..].split_whitespace().next()?.trim_end_matches('/').to_owned())
        });
        // It logs every request; an unread pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, endpoint: endpoint.expect("moto_server names its port") }
    }

    /// Runs lines of Python with AWS's own client, and returns what they print.
    fn python(&self, lines: &str) -> String {
        let script = format!(
            "import boto3\ndef client(service):\n    return boto3.client(service, endpoint_url={:?}, \
             region_name='us-east-1', aws_access_key_id='id', aws_secret_access_key='key')\n{lines}\n",
            self.endpoint
        );
        let python = moto_server().unwrap().with_file_name("python");
        let output = Command::new(python).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn sns(url: &str, target: &str) -> Sns {
    let client = Client::new(None, Duration::from_secs(30)).unwrap();
    let target = (Target::parse(target).unwrap(), "us-east-1");
    let secret = Secret::new("s3cret-of-test".to_owned());
    Sns::new(client, http::address(url, false).unwrap(), target, Some(("AKIDTEST", &secret))).await.unwrap()
}

fn form(request: &Received) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(&request.body).into_owned().collect()
}

/// A topic with a queue behind it: what the queue has is what a subscriber would get.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_hands_on_what_was_said_and_a_telephone_gets_its_text() {
    let moto = Moto::start();
    let made = moto
        .python(
            "sns, sqs = client('sns'), client('sqs')\n\
             for name, more in (('on-call', {}), ('on-call.fifo', {'FifoTopic': 'true'})):\n\
             \x20   topic = sns.create_topic(Name=name, Attributes=more)['TopicArn']\n\
             \x20   more = {'FifoQueue': 'true'} if more else {}\n\
             \x20   queue = sqs.create_queue(QueueName=name, Attributes=more)['QueueUrl']\n\
             \x20   arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=['QueueArn'])['Attributes']['QueueArn']\n\
             \x20   sns.subscribe(TopicArn=topic, Protocol='sqs', Endpoint=arn)\n\
             \x20   print(topic)",
        );
    let topics: Vec<&str> = made.lines().collect();
    let mut long = notice(Kind::Opened, 1);
    long.title = "Störung".to_owned();
    long.text = "Zeile ä\n".repeat(40_000);
    for topic in &topics {
        let channel = sns(&moto.endpoint, topic).await;
        assert_eq!(name(&deliver(&channel, &long, None).await), "accepted", "{topic}");
    }
    let got = moto
        .python(
            "import json\nsqs = client('sqs')\n\
             for name in ('on-call', 'on-call.fifo'):\n\
             \x20   queue = sqs.get_queue_url(QueueName=name)['QueueUrl']\n\
             \x20   print(json.dumps([json.loads(m['Body']) for m in sqs.receive_message(QueueUrl=queue)['Messages']]))",
        );
    for line in got.lines() {
        let messages: Value = serde_json::from_str(line).unwrap();
        assert_eq!(messages.as_array().unwrap().len(), 1);
        assert_eq!(messages[0]["Subject"], "[P0] St?rung");
        let text = messages[0]["Message"].as_str().unwrap();
        assert!(text.starts_with("CRITICAL OUTAGE: Störung") && text.len() <= 200_000, "{}", text.len());
        assert_eq!(messages[0]["MessageAttributes"]["severity"]["Value"], "P0");
    }
    assert_eq!(got.lines().count(), 2);
    let phone = sns(&moto.endpoint, "+491701234567").await;
    assert_eq!(name(&deliver(&phone, &long, None).await), "accepted");
    let nowhere = sns(&moto.endpoint, "arn:aws:sns:us-east-1:123456789012:no-such-topic").await;
    let outcome = deliver(&nowhere, &long, None).await;
    assert_eq!(name(&outcome), "refused");
    assert!(format!("{outcome:?}").contains("NotFound"), "{outcome:?}");
}

fn says(status: u16, code: &str, message: &str) -> Answer {
    let xml = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    Answer::Status(status, Vec::new(), xml)
}

#[tokio::test]
async fn what_sns_says_on_bad_days_is_understood() {
    let cases = [
        (says(400, "Throttling", "Rate exceeded"), "limited"),
        (says(429, "TooManyRequestsException", "slow down"), "limited"),
        (says(403, "ExpiredToken", "The security token included in the request is expired"), "later"),
        (says(403, "SignatureDoesNotMatch", "Signature expired: 2015 is now earlier than 2026"), "later"),
        (says(403, "SignatureDoesNotMatch", "The request signature we calculated does not match"), "refused"),
        (says(403, "InvalidClientTokenId", "The security token is invalid"), "refused"),
        (says(403, "AuthorizationError", "not authorized to perform: SNS:Publish"), "refused"),
        (says(404, "NotFound", "Topic does not exist"), "refused"),
        (says(500, "InternalError", "sorry"), "later"),
        (Answer::ok("<html>Welcome to the hotel</html>"), "later"),
        (Answer::ok("<PublishResponse><MessageId>1</MessageId></PublishResponse>"), "accepted"),
        (Answer::Close, "unknown"),
        (Answer::status(302), "refused"),
    ];
    for (answer, expected) in cases {
        let shown = format!("{answer:?}");
        let sink = HttpSink::start(move |_, _| answer.clone()).unwrap();
        let outcome = deliver(&sns(&sink.url("/"), TOPIC).await, &notice(Kind::Opened, 1), None).await;
        assert_eq!(name(&outcome), expected, "{shown}: {outcome:?}");
        let received = sink.received();
        assert_eq!(received.len(), 1, "{shown}: nothing is repeated");
        let login = received[0].header("authorization").unwrap();
        assert!(
            login.starts_with("AWS4-HMAC-SHA256 Credential=AKIDTEST/") && login.contains("/us-east-1/sns/")
        );
        assert!(!format!("{received:?}{outcome:?}").contains("s3cret-of-test"));
    }
}

#[tokio::test]
async fn a_fifo_topic_gets_the_thread_as_its_group_and_the_notice_as_its_name() {
    let sink = HttpSink::start(|_, _| Answer::ok("<MessageId>1</MessageId>")).unwrap();
    let channel = sns(&sink.url("/"), &format!("{TOPIC}.fifo")).await;
    deliver(&channel, &notice(Kind::Update, 2), None).await;
    let form = form(&sink.received()[0]);
    assert_eq!(form["MessageGroupId"], "20261122T221354Z-3f9a2c01");
    assert_eq!(form["MessageDeduplicationId"], "i~2");
    assert_eq!(form["TopicArn"], format!("{TOPIC}.fifo"));
    // A telephone has neither subject nor groups.
    let phone = sns(&sink.url("/"), "+491701234567").await;
    deliver(&phone, &notice(Kind::Opened, 3), None).await;
    let form = self::form(&sink.received()[1]);
    assert_eq!(form["PhoneNumber"], "+491701234567");
    assert!(form["Message"].starts_with("[P0] down\n") && !form.contains_key("Subject"));
}
