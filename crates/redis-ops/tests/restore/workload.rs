//! Writes of every kind, one command or transaction at a time, with the digest of the whole data after each.

use backstay_redis_ops::Offset;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::aio::MultiplexedConnection;

use crate::world::{ask, digest, offset};

/// What the data was at an offset.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) offset: Offset,
    pub(crate) digest: String,
}

const LIBRARY: &str = "#!lua name=counters\nredis.register_function('bump', function(keys, args) \
    redis.call('INCRBY', keys[1], args[1]) return redis.call('HINCRBY', keys[2], 'total', args[1]) end)";

pub(crate) struct Workload {
    rng: StdRng,
    connection: MultiplexedConnection,
}

impl Workload {
    pub(crate) async fn new(seed: u64, mut connection: MultiplexedConnection) -> Self {
        let load = redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(LIBRARY).to_owned();
        let _: String = load.query_async(&mut connection).await.unwrap();
        Self { rng: StdRng::seed_from_u64(seed), connection }
    }

    pub(crate) async fn mark(&mut self) -> Mark {
        let offset = offset(&mut self.connection).await;
        Mark { offset, digest: digest(&mut self.connection).await }
    }

    /// Does something, and says where and what the data was afterwards.
    pub(crate) async fn step(&mut self) -> Mark {
        let number = self.rng.random_range(0..100);
        match number {
            0..6 => {
                let database = self.rng.random_range(0..4);
                self.run(&format!("SELECT {database}")).await;
            }
            6..16 => self.transaction().await,
            16..24 => self.script().await,
            24..30 => {
                let (key, hash) = (self.key("string"), self.key("hash"));
                self.run(&format!("FCALL bump 2 {key} {hash} {number}")).await;
            }
            _ => {
                let command = self.command();
                self.run(&command).await;
            }
        }
        self.mark().await
    }

    fn key(&mut self, kind: &str) -> String {
        format!("{kind}:{}", self.rng.random_range(0..12))
    }

    async fn run(&mut self, command: &str) {
        let _: redis::Value = ask(&mut self.connection, command).await;
    }

    async fn transaction(&mut self) {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for _ in 0..self.rng.random_range(1..6) {
            let command = self.command();
            let mut words = command.split(' ');
            pipe.cmd(words.next().unwrap());
            words.for_each(|word| {
                pipe.arg(word);
            });
        }
        let _: redis::Value = pipe.query_async(&mut self.connection).await.unwrap();
    }

    async fn script(&mut self) {
        let code = "redis.call('LPUSH', KEYS[1], ARGV[1]) redis.call('SADD', KEYS[2], ARGV[1], ARGV[2]) \
            return redis.call('SPOP', KEYS[2])";
        let (list, set) = (self.key("list"), self.key("set"));
        let (one, other) = (self.rng.random::<u32>(), self.rng.random::<u32>());
        let script = redis::cmd("EVAL").arg(code).arg(2).arg(list).arg(set).arg(one).arg(other).to_owned();
        let _: redis::Value = script.query_async(&mut self.connection).await.unwrap();
    }

    fn command(&mut self) -> String {
        let n = self.rng.random_range(0..1000_u32);
        let score = f64::from(self.rng.random_range(0..1000_u32)) / 8.0;
        let value = "v".repeat(self.rng.random_range(1..400));
        let (string, list, set) = (self.key("string"), self.key("list"), self.key("set"));
        let (hash, zset, stream) = (self.key("hash"), self.key("zset"), self.key("stream"));
        match self.rng.random_range(0..26) {
            0 => format!("SET text:{n} {value}"),
            1 => format!("SET text:{n} {value} EX 100000"),
            2 => format!("INCRBY {string} {n}"),
            3 => format!("APPEND log:{} {value}", n % 7),
            4 => format!("SETRANGE bits:{} {n} {value}", n % 5),
            5 => format!("SETBIT flags {n} 1"),
            6 => format!("PFADD visitors {n} {string}"),
            7 => format!("RPUSH {list} {n} {value} c"),
            8 => format!("LPOP {list}"),
            9 => format!("LMOVE {list} list:0 LEFT RIGHT"),
            10 => format!("SADD {set} {n} a b"),
            11 => format!("SPOP {set} 2"),
            12 => format!("SUNIONSTORE set:all {set} set:1"),
            13 => format!("HSET {hash} field:{n} {value} count {n}"),
            14 => format!("HDEL {hash} count"),
            15 => format!("ZADD {zset} {score} member:{n}"),
            16 => format!("ZPOPMIN {zset}"),
            17 => format!("ZADD {zset} INCR 1.5 member:x"),
            18 => format!("XADD {stream} MAXLEN 20 * n {n} v {value}"),
            19 => format!("XTRIM {stream} MAXLEN 5"),
            20 => format!("GEOADD places {score} 12.5 place:{n}"),
            21 => format!("DEL {string} {list}"),
            22 => format!("PEXPIRE text:{n} 90000000"),
            23 => format!("COPY {set} set:copy DB 2 REPLACE"),
            24 => format!("PERSIST text:{n}"),
            _ if n < 30 => "FLUSHDB".to_owned(),
            _ => format!("GETEX text:{n} EX 200000"),
        }
    }
}
