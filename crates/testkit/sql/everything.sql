-- One of everything PostgreSQL has, with the names and values that break backup tools. For psql, PostgreSQL 14 to 18.
--
-- May be loaded into several databases of one server (encoding UTF8): roles are made only once. Everything here
-- survives a dump and load unchanged, with one exception, see by_hash_of_enum.
\set ON_ERROR_STOP on
SET client_min_messages = error;
SET TimeZone = 'UTC';
SET check_function_bodies = on;

SELECT current_setting('server_version_num')::int >= 150000 AS pg15,
       current_setting('server_version_num')::int >= 160000 AS pg16,
       current_setting('server_version_num')::int >= 170000 AS pg17,
       current_setting('server_version_num')::int >= 180000 AS pg18,
       'lz4' = ANY (enumvals) AS has_lz4,
       EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i') AS has_icu,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'hstore') AS has_contrib,
       current_database() AS db
FROM pg_settings WHERE name = 'default_toast_compression' \gset

---------------------------------------------------------------------------------------------------- roles

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['everything_owner', 'everything_reader', 'everything_login', 'Everything "quoted" role é']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE everything_owner WITH CREATEDB CREATEROLE NOLOGIN BYPASSRLS;
ALTER ROLE everything_login WITH LOGIN REPLICATION CONNECTION LIMIT 3 PASSWORD 'it''s "secret" \ ü' VALID UNTIL '2099-12-31 23:59:59+00';
ALTER ROLE everything_reader WITH NOINHERIT;
GRANT everything_reader TO everything_login WITH ADMIN OPTION;
GRANT everything_owner TO "Everything ""quoted"" role é";
\if :pg16
GRANT pg_read_all_data TO everything_reader WITH INHERIT FALSE, SET TRUE;
\else
GRANT pg_read_all_data TO everything_reader;
\endif
ALTER ROLE everything_login SET work_mem = '7MB';
ALTER ROLE everything_login SET search_path = "$user", 'Odd schema', public;
ALTER ROLE everything_login IN DATABASE :"db" SET DateStyle = 'German, DMY';
COMMENT ON ROLE everything_owner IS 'Owns most of it; it''s a "role"
on two lines';

---------------------------------------------------------------------------------------------------- schemas, extensions

CREATE SCHEMA main AUTHORIZATION everything_owner;
CREATE SCHEMA "Odd ""schema""
of things, ünïcödé 漢字 🦀";
CREATE SCHEMA empty_schema;
COMMENT ON SCHEMA main IS E'tab\there, backslash \\, quote '' and emoji 🦀';
ALTER DEFAULT PRIVILEGES FOR ROLE everything_owner IN SCHEMA main GRANT SELECT ON TABLES TO everything_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE everything_owner GRANT USAGE ON SEQUENCES TO everything_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE everything_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
SET search_path = main, public;

\if :has_contrib
CREATE EXTENSION hstore WITH SCHEMA public;
CREATE EXTENSION citext WITH SCHEMA public;
CREATE EXTENSION pgcrypto WITH SCHEMA public;
CREATE EXTENSION btree_gist WITH SCHEMA public;
COMMENT ON EXTENSION hstore IS 'a comment of our own';
CREATE TABLE of_extensions (h public.hstore, c public.citext UNIQUE, i int, EXCLUDE USING gist (i WITH =) WHERE (h IS NULL));
INSERT INTO of_extensions VALUES ('a=>1, "b c"=>NULL', 'MiXeD'), (NULL, NULL);
\endif

---------------------------------------------------------------------------------------------------- types

CREATE TYPE mood AS ENUM ('sad', 'it''s "fine"', 'happy');
ALTER TYPE mood ADD VALUE 'so-so' BEFORE 'happy';
CREATE TYPE address AS (street text, "house no" integer, lines text[]);
CREATE TYPE person AS (name text, home address, born date);
CREATE DOMAIN positive AS integer DEFAULT 1 NOT NULL CONSTRAINT above_zero CHECK (VALUE > 0);
CREATE DOMAIN short_text AS varchar(10) COLLATE "C" CHECK (length(VALUE) < 9);
CREATE DOMAIN positives AS positive[] CHECK (array_length(VALUE, 1) < 5);
CREATE DOMAIN named AS person CHECK ((VALUE).name <> '');
CREATE TYPE float_range AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE text_range AS RANGE (subtype = text, collation = "C", multirange_type_name = text_ranges);
CREATE TYPE not_yet;
CREATE TYPE number;
CREATE FUNCTION number_in(cstring) RETURNS number LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION number_out(number) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE number (INPUT = number_in, OUTPUT = number_out, LIKE = integer, DEFAULT = '7', DELIMITER = ';');
COMMENT ON TYPE mood IS 'how one feels';
COMMENT ON CONSTRAINT above_zero ON DOMAIN positive IS 'really';
CREATE COLLATION simple FROM "C";
\if :has_icu
CREATE COLLATION german_phonebook (provider = icu, locale = 'de-u-co-phonebk');
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
COMMENT ON COLLATION ignore_case IS 'a = A';
\endif

CREATE TABLE scalars (
    id integer PRIMARY KEY,
    t_bool boolean, t_int2 smallint, t_int4 integer, t_int8 bigint, t_numeric numeric, t_numeric_s numeric(20, 5),
    t_float4 real, t_float8 double precision, t_money money,
    t_text text, t_varchar varchar(30), t_char char(8), t_qchar "char", t_name name, t_bytea bytea,
    t_date date, t_time time, t_time0 time(0), t_timetz timetz, t_ts timestamp, t_tstz timestamptz, t_tstz3 timestamptz(3),
    t_interval interval, t_interval_ym interval year to month,
    t_point point, t_line line, t_lseg lseg, t_box box, t_path path, t_polygon polygon, t_circle circle,
    t_inet inet, t_cidr cidr, t_mac macaddr, t_mac8 macaddr8,
    t_bit bit(5), t_varbit bit varying(70), t_uuid uuid, t_xml xml, t_json json, t_jsonb jsonb, t_jsonpath jsonpath,
    t_tsvector tsvector, t_tsquery tsquery, t_lsn pg_lsn, t_snapshot pg_snapshot, t_txid txid_snapshot,
    t_oid oid, t_xid xid, t_xid8 xid8, t_cid cid, t_tid tid, t_regclass regclass, t_regtype regtype, t_regproc regproc,
    t_regprocedure regprocedure, t_regoper regoper, t_regoperator regoperator, t_regrole regrole,
    t_regnamespace regnamespace, t_regconfig regconfig, t_regdictionary regdictionary, t_regcollation regcollation,
    t_int2vector int2vector, t_oidvector oidvector, t_aclitem aclitem, t_refcursor refcursor,
    t_int4range int4range, t_int8range int8range, t_numrange numrange, t_tsrange tsrange, t_tstzrange tstzrange,
    t_daterange daterange, t_int4multi int4multirange, t_int8multi int8multirange, t_nummulti nummultirange,
    t_tsmulti tsmultirange, t_tstzmulti tstzmultirange, t_datemulti datemultirange,
    t_mood mood, t_address address, t_person person, t_positive positive, t_short short_text, t_positives positives,
    t_named named, t_floats float_range, t_texts text_range, t_text_ranges text_ranges, t_number number
);

INSERT INTO scalars VALUES (1,
    true, 32767, 2147483647, 9223372036854775807, 'NaN', 123456789012345.12345,
    'NaN', 'Infinity', '$92,233,720,368,547,758.07',
    E'tab\tnewline\nreturn\rbackslash\\ \\N \\. ''quote'' "double" 🦀 é e\u0301 \u202Eright', '\N', 'ab', 'x', 'a name', '\x00ff10005c',
    'infinity', '24:00:00', '23:59:59', '12:34:56.789012+15:59', 'infinity', '-infinity', '2000-01-01 00:00:00.1235+00',
    '178000000 years', '-3 years 5 mons',
    '(1.5,-2e300)', '{1,-1,0}', '[(0,0),(1,1)]', '(2,2),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,2),3>',
    '2001:db8::1/64', '10.1.0.0/16', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
    '10101', repeat('10', 35)::bit varying, 'ffffffff-0000-4000-8000-00000000000f', '<a b="c">&lt;<!-- x --><![CDATA[ ]] ]]></a>',
    '{"b": 1,  "a": [1, 2.50, null], "b": "dup \u00e9"}', '{"z": 1e400, "a": {"": [[], {}, "\\u0041\ttab"]}}', 'strict $.a[*] ? (@ > 3 && @.b like_regex "^x" flag "i")',
    'a:1A,3 fat:2B cat''s \''quoted''', 'fat & (rat | !cat:AB*) <2> dog', '16/B374D848', '10:20:10,14,15', '10:20:10,14,15',
    4294967295, '4294967295', '18446744073709551615', '7', '(42,9)', 'pg_catalog.pg_class', 'main.mood', 'pg_catalog.now',
    'pg_catalog.abs(integer)', 'pg_catalog.||/', 'pg_catalog.+(integer,integer)', 'everything_reader',
    'main', 'pg_catalog.english', 'pg_catalog.simple', '"C"',
    '1 2 3', '4 5 6', 'everything_reader=r*w/everything_owner', 'cursor "1"',
    '[1,10)', '(,)', '[1.1,1.1]', '[2000-01-01,infinity)', '[-infinity,)', 'empty', '{[1,3),[5,7)}', '{(,5),[9,)}', '{}',
    '{[2000-01-01,2000-01-02)}', '{[2000-01-01 00:00+00,)}', '{[2000-01-01,2000-02-01),[2001-01-01,infinity)}',
    'so-so', ROW('Main "St", 1', 5, ARRAY['a', NULL, '']), ROW('Al', ROW('x', NULL, '{}'), '1999-01-01'), 5, 'short',
    ARRAY[1, 2], ROW('Bo', NULL, NULL), '[1.5,2.5)', '["a b","c""d")', '{[a,b),[c,)}', '-42');

INSERT INTO scalars (id, t_bool, t_int2, t_int4, t_int8, t_numeric, t_float4, t_float8, t_money, t_text, t_varchar, t_char, t_qchar, t_name,
    t_bytea, t_date, t_time, t_timetz, t_ts, t_tstz, t_interval, t_json, t_jsonb, t_xml, t_inet, t_lsn, t_box, t_circle, t_number, t_positive)
VALUES (2, false, -32768, -2147483648, -9223372036854775808, 'Infinity', '-0', 'NaN', '-$92,233,720,368,547,758.08', '', '', '', '', '', '', '-infinity',
        '00:00', '00:00-15:59', '4713-11-24 00:00:00 BC', '294276-12-31 23:59:59.999999+00', '-178000000 years', 'null', 'null', '', '::', '0/0',
        '(NaN,Infinity),(-Infinity,0)', '<(0,0),0>', '0', 1),
       (3, NULL, 0, 0, 0, ('-1' || repeat('0123456789', 100) || '.' || repeat('9', 500))::numeric, '1.17549435e-38', '5e-324', '0', E'\\.', E'\\\\N', ' a  ', E'\\377',
        repeat('n', 63), decode(repeat('00deadbeef', 300), 'hex'), '4713-01-01 BC', '23:59:59.999999', '00:00+15:59', '294276-12-31 23:59:59.999999',
        '4713-11-24 00:00:00+00 BC', '1 mon -1 day +00:00:00.000001', '[]', '[1.0, 1.00, 100000000000000000000000000000.5]', 'text only', '0.0.0.0/0',
        'FFFFFFFF/FFFFFFFF', '(0,0),(0,0)', '<(1e-300,1e300),1e-300>', '2147483647', 2),
       (4, NULL, NULL, NULL, NULL, '-Infinity', '3.4028235e38', '-1.7976931348623157e308', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 3);
\if :pg17
UPDATE scalars SET t_interval = 'infinity' WHERE id = 4;
\endif
COMMENT ON COLUMN scalars.t_text IS '';
COMMENT ON COLUMN scalars.t_json IS 'keeps blanks, order and duplicates';

CREATE TABLE arrays (
    id serial PRIMARY KEY, ints integer[], matrix integer[][], texts text[], based text[], bools bool[], bytes bytea[], dates date[],
    numerics numeric(6, 2)[], jsons jsonb[], moods mood[], people person[], ranges int4range[], multis int4multirange[],
    boxes box[], inets inet[], uuids uuid[], intervals interval[], chars char(3)[], numbers number[], bits varbit[], xmls xml[]
);
INSERT INTO arrays (ints, matrix, texts, based, bools, bytes, dates, numerics, jsons, moods, people, ranges, multis, boxes, inets, uuids,
    intervals, chars, numbers, bits, xmls)
VALUES ('{1,NULL,3}', '{{1,2},{3,4}}', ARRAY['', 'NULL', NULL, E'a,"b\\c}', E'two\nlines'], '[-1:1]={x,y,z}', '{t,f,NULL}', ARRAY['\x00'::bytea, '\x'],
        '{infinity,-infinity,"4713-01-01 BC"}', '{NaN,1.50}', ARRAY['{"a": [1]}'::jsonb, NULL, 'null'], '{sad,"it''s \"fine\""}',
        ARRAY[ROW('a "b"', ROW('s', 1, ARRAY['l1', 'l,2']), NULL)::person], '{"[1,5)",empty}', ARRAY['{[1,2),[4,5)}'::int4multirange, '{}'], '{(1,1),(0,0);(2,2),(1,1)}',
        '{::1,10.0.0.0/8}', '{00000000-0000-0000-0000-000000000000}', '{"1 day","-1 mon"}', '{a,ab,abc}', '{1;2}', '{101,""}', ARRAY['<a/>'::xml]),
       ('{}', '{}', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

---------------------------------------------------------------------------------------------------- names

CREATE TABLE "Odd ""schema""
of things, ünïcödé 漢字 🦀"."table ""with"" quotes, spaces
and a newline; DROP TABLE x; -- %s :var $1 \d" (
    "select" integer CONSTRAINT "check ""it""" CHECK ("select" > 0), "sélect 漢字 🦀" text, "a
b" text DEFAULT E'default\nof ''two'' lines', " " integer, "100% ""sure""\" text, UPPER text, "UPPER" text,
    PRIMARY KEY ("select"), UNIQUE ("a
b", " ")
);
INSERT INTO "Odd ""schema""
of things, ünïcödé 漢字 🦀"."table ""with"" quotes, spaces
and a newline; DROP TABLE x; -- %s :var $1 \d" VALUES (1, 'ü', DEFAULT, 1, '%', 'u', 'U'), (2, '🦀', E'x\ty', NULL, '', NULL, '');
COMMENT ON TABLE "Odd ""schema""
of things, ünïcödé 漢字 🦀"."table ""with"" quotes, spaces
and a newline; DROP TABLE x; -- %s :var $1 \d" IS '-- not a comment
\connect nowhere
$$ ''quoted'' $$';
CREATE TABLE "user" ("order" integer, "table" text);
INSERT INTO "user" VALUES (1, 'reserved');
CREATE TABLE a23456789_123456789_123456789_123456789_123456789_123456789_123 (a23456789_123456789_123456789_123456789_123456789_123456789_123 int);

---------------------------------------------------------------------------------------------------- tables of all kinds

CREATE TABLE empty_table (id integer, note text);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns SELECT FROM generate_series(1, 2);
CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY, at timestamptz DEFAULT now());
INSERT INTO unlogged VALUES (1, '2024-02-29 12:00+00');
CREATE TABLE of_type OF address (street WITH OPTIONS NOT NULL, PRIMARY KEY (street));
INSERT INTO of_type VALUES ('typed', 1, '{}');

CREATE TABLE with_holes (gone1 int, a text, gone2 int, b text, gone3 int);
INSERT INTO with_holes VALUES (1, 'a', 2, 'b', 3);
ALTER TABLE with_holes DROP COLUMN gone1, DROP COLUMN gone2, DROP COLUMN gone3, ADD COLUMN late integer NOT NULL DEFAULT 42;
INSERT INTO with_holes VALUES ('c', 'd', 43);

CREATE TABLE wide_values (id int PRIMARY KEY, compressible text, noise bytea, external text, pglz text COMPRESSION pglz);
ALTER TABLE wide_values ALTER external SET STORAGE EXTERNAL, ALTER noise SET STATISTICS 7, ALTER id SET (n_distinct = -0.5);
\if :has_lz4
ALTER TABLE wide_values ALTER compressible SET COMPRESSION lz4;
\endif
ALTER TABLE wide_values SET (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_vacuum_threshold = 1234);
INSERT INTO wide_values
SELECT i, repeat('long ' || i, 200000), decode(string_agg(md5(i || '.' || n), ''), 'hex'), repeat('x', 20000), repeat('p', 5000)
FROM generate_series(1, 2) AS i, generate_series(1, 20000) AS n GROUP BY i;

CREATE TABLE generated (
    id bigint GENERATED ALWAYS AS IDENTITY (START 1000 INCREMENT 10 CACHE 5),
    by_default integer GENERATED BY DEFAULT AS IDENTITY (MINVALUE -100 START -50),
    width numeric NOT NULL, height numeric DEFAULT 2 * 1.5,
    area numeric GENERATED ALWAYS AS (width * coalesce(height, 0)) STORED
);
INSERT INTO generated (width) VALUES (1), (2.5), (1e10);
INSERT INTO generated (id, by_default, width) OVERRIDING SYSTEM VALUE VALUES (7, 7, 7);
\if :pg18
ALTER TABLE generated ADD COLUMN doubled numeric GENERATED ALWAYS AS (width * 2) VIRTUAL;
CREATE TABLE periods (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));
INSERT INTO periods VALUES (1, '[2020-01-01,2021-01-01)'), (1, '[2021-01-01,)');
\endif

CREATE SEQUENCE counter AS smallint START 10 INCREMENT 3 MAXVALUE 1000 CYCLE;
SELECT nextval('counter') FROM generate_series(1, 5);
CREATE SEQUENCE backwards INCREMENT -1 MINVALUE -9223372036854775808 START -1;
SELECT setval('backwards', -9000000000000000000);
CREATE SEQUENCE untouched START 55;
CREATE SEQUENCE not_called;
SELECT setval('not_called', 77, false);
CREATE SEQUENCE "odd ""sequence""" OWNED BY "user"."order";
ALTER TABLE "user" ALTER "order" SET DEFAULT nextval('"odd ""sequence"""');
COMMENT ON SEQUENCE counter IS 'mid-count';

---------------------------------------------------------------------------------------------------- partitions, inheritance

CREATE TABLE by_range (id int NOT NULL, at date NOT NULL, v text DEFAULT 'parent', PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE by_range_old PARTITION OF by_range FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE by_range_2024 PARTITION OF by_range (v DEFAULT 'child') FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (id);
CREATE TABLE by_range_2024_1 PARTITION OF by_range_2024 FOR VALUES IN (1, 2);
CREATE TABLE by_range_2024_rest PARTITION OF by_range_2024 DEFAULT;
CREATE TABLE by_range_default (at date NOT NULL, v text, dropped int, id int NOT NULL);
ALTER TABLE by_range_default DROP COLUMN dropped;
ALTER TABLE by_range ATTACH PARTITION by_range_default DEFAULT;
INSERT INTO by_range SELECT i, date '2023-06-01' + i * 100, 'v' || i FROM generate_series(1, 12) AS i;
CREATE INDEX by_range_v ON by_range (v);
CREATE TABLE by_list (k text COLLATE "C", n int) PARTITION BY LIST (lower(k));
CREATE TABLE by_list_ab PARTITION OF by_list FOR VALUES IN ('a', 'b''c', NULL);
CREATE TABLE by_list_rest PARTITION OF by_list DEFAULT;
INSERT INTO by_list VALUES ('A', 1), ('B''C', 2), (NULL, 3), ('z', 4);
CREATE TABLE by_hash (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
CREATE TABLE by_hash_0 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE by_hash_1 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE by_hash_2 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO by_hash SELECT i, 'happy' FROM generate_series(1, 30) AS i;
-- An enum value hashes as its oid, which a load changes: the rows then sit in other partitions of the same table.
CREATE TABLE by_hash_of_enum (id int, m mood) PARTITION BY HASH (m, id);
CREATE TABLE by_hash_of_enum_0 PARTITION OF by_hash_of_enum FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_hash_of_enum_1 PARTITION OF by_hash_of_enum FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_hash_of_enum SELECT i, 'happy' FROM generate_series(1, 30) AS i;
CREATE TABLE no_partitions (id int) PARTITION BY RANGE (id);

CREATE TABLE ancestor (id int CHECK (id > 0), name text, CONSTRAINT only_here CHECK (name <> 'x') NO INHERIT);
CREATE TABLE mixin (extra jsonb DEFAULT '{}');
CREATE TABLE heir (own text) INHERITS (ancestor, mixin);
INSERT INTO ancestor VALUES (1, 'parent');
INSERT INTO heir VALUES (2, 'child', '{"a": 1}', 'own');

---------------------------------------------------------------------------------------------------- constraints and indexes

CREATE TABLE linked (
    id int PRIMARY KEY, parent int, scalar int DEFAULT 1, span int4range, label text, "on" date,
    CONSTRAINT self FOREIGN KEY (parent) REFERENCES linked ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT other FOREIGN KEY (scalar) REFERENCES scalars (id) MATCH FULL ON UPDATE SET NULL ON DELETE SET DEFAULT,
    CONSTRAINT no_overlap EXCLUDE USING gist (span WITH &&) DEFERRABLE,
    CONSTRAINT unique_label UNIQUE (label) INCLUDE ("on")
);
INSERT INTO linked VALUES (2, 1, 1, '[1,5)', 'two', '2024-01-01'), (1, 2, 2, '[5,9)', 'one', NULL), (3, NULL, NULL, NULL, NULL, NULL);
ALTER TABLE linked ADD CONSTRAINT later CHECK (id < 3) NOT VALID;
ALTER TABLE linked ADD CONSTRAINT ranged FOREIGN KEY (id, "on") REFERENCES by_range NOT VALID;
COMMENT ON CONSTRAINT self ON linked IS 'a circle';
CREATE TABLE circle_a (id int PRIMARY KEY, b int);
CREATE TABLE circle_b (id int PRIMARY KEY, a int REFERENCES circle_a);
INSERT INTO circle_a VALUES (1, 1);
INSERT INTO circle_b VALUES (1, 1);
ALTER TABLE circle_a ADD FOREIGN KEY (b) REFERENCES circle_b;

CREATE INDEX expression_index ON scalars (lower(t_text) text_pattern_ops, (t_int4 / 2) DESC NULLS LAST) WHERE t_bool IS NOT NULL;
CREATE INDEX hash_index ON scalars USING hash (t_uuid);
CREATE INDEX gin_index ON scalars USING gin (t_jsonb jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX brin_index ON scalars USING brin (t_int8) WITH (pages_per_range = 16);
CREATE INDEX spgist_index ON scalars USING spgist (t_inet);
CREATE INDEX gist_index ON scalars USING gist (t_tsvector tsvector_ops (siglen = 100));
CREATE UNIQUE INDEX identity_index ON with_holes (late) INCLUDE (a);
ALTER TABLE with_holes REPLICA IDENTITY USING INDEX identity_index;
ALTER TABLE empty_table REPLICA IDENTITY FULL;
ALTER TABLE linked CLUSTER ON linked_pkey;
COMMENT ON INDEX gin_index IS 'found by content';
\if :pg15
CREATE UNIQUE INDEX one_null ON linked (parent) NULLS NOT DISTINCT;
\endif
\if :has_icu
CREATE TABLE collated (de text COLLATE german_phonebook, ci text COLLATE ignore_case UNIQUE, c text COLLATE "C", s text COLLATE simple);
INSERT INTO collated VALUES ('Ärger', 'Same', 'b', 'B'), ('Zorn', 'other', 'B', 'b');
CREATE INDEX collated_index ON collated (c COLLATE german_phonebook);
\endif
CREATE STATISTICS correlated (ndistinct, dependencies, mcv) ON id, v FROM by_range;
CREATE STATISTICS expressions ON lower(t_text), (t_int4 % 10) FROM scalars;
ALTER STATISTICS correlated SET STATISTICS 500;
COMMENT ON STATISTICS correlated IS 'they go together';

---------------------------------------------------------------------------------------------------- routines and what builds on them

CREATE FUNCTION variadic_sum(label text DEFAULT E'it''s\n', VARIADIC numbers int[] DEFAULT '{}') RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF COST 7
AS $q$ SELECT label || coalesce(sum(n), 0)::text FROM unnest(numbers) AS n $q$;
CREATE FUNCTION atomic(x int, OUT twice int, OUT thrice int) LANGUAGE sql BEGIN ATOMIC SELECT x * 2, x * 3; END;
CREATE FUNCTION rows_of(n int) RETURNS TABLE (id int, name text) LANGUAGE plpgsql STABLE ROWS 17 SECURITY DEFINER SET search_path = main, pg_temp
AS $body$
BEGIN
    -- $$ a dollar quote inside $$
    RETURN QUERY SELECT a.id, a.name FROM ancestor a LIMIT n;
END
$body$;
CREATE FUNCTION people() RETURNS SETOF person LANGUAGE sql AS 'SELECT t_person FROM main.scalars WHERE t_person IS NOT NULL';
CREATE PROCEDURE note_it(INOUT what text) LANGUAGE plpgsql AS $$ BEGIN what := what || '!'; END $$;
COMMENT ON FUNCTION variadic_sum(text, int[]) IS 'sums';
COMMENT ON PROCEDURE note_it(text) IS 'notes';
CREATE AGGREGATE concat_all(text) (SFUNC = textcat, STYPE = text, INITCOND = '', COMBINEFUNC = textcat, PARALLEL = SAFE);
CREATE AGGREGATE middle(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
COMMENT ON AGGREGATE concat_all(text) IS 'all of it';
CREATE FUNCTION near(a int, b int) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN abs(a - b) <= 1;
CREATE OPERATOR ~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = near, COMMUTATOR = ~~~, RESTRICT = eqsel);
COMMENT ON OPERATOR ~~~ (int, int) IS 'nearly';
CREATE FUNCTION number_to_int(number) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'int4abs';
CREATE CAST (number AS integer) WITH FUNCTION number_to_int(number) AS ASSIGNMENT;
CREATE OPERATOR FAMILY backward_ops USING btree;
CREATE OPERATOR CLASS backward_int FOR TYPE int USING btree FAMILY backward_ops
    AS OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
CREATE TEXT SEARCH DICTIONARY plain_words (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION own_config (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION own_config ALTER MAPPING FOR asciiword WITH plain_words, english_stem;
CREATE CONVERSION own_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE ACCESS METHOD heap_again TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other_access (id int) USING heap_again;
INSERT INTO other_access VALUES (1);

CREATE VIEW simple_view AS SELECT id, t_text AS "odd ""column""" FROM scalars;
CREATE VIEW checked WITH (security_barrier) AS SELECT id, name FROM ONLY ancestor WHERE id > 0 WITH LOCAL CHECK OPTION;
CREATE RECURSIVE VIEW counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 5;
CREATE VIEW stacked AS SELECT v.id, c.n, w.* FROM simple_view v CROSS JOIN counting c CROSS JOIN LATERAL (SELECT rank() OVER (ORDER BY c.n) AS r) w;
COMMENT ON VIEW stacked IS 'on others';
ALTER VIEW simple_view ALTER id SET DEFAULT 99;
\if :pg15
CREATE VIEW as_invoker WITH (security_invoker) AS SELECT * FROM linked;
\endif
CREATE MATERIALIZED VIEW filled AS SELECT v, count(*) AS n FROM by_range GROUP BY v;
CREATE UNIQUE INDEX ON filled (v);
CREATE MATERIALIZED VIEW unfilled AS SELECT n FROM filled WITH NO DATA;
CREATE MATERIALIZED VIEW upon_filled AS SELECT sum(n) AS total FROM filled;

CREATE RULE keep_rows AS ON DELETE TO with_holes WHERE old.late > 43 DO INSTEAD NOTHING;
CREATE RULE copy_rows AS ON INSERT TO other_access DO ALSO INSERT INTO empty_table VALUES (new.id, 'rule');
CREATE TABLE audit (at timestamptz, what text);
CREATE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO main.audit VALUES (now(), TG_NAME || coalesce(' ' || TG_ARGV[0], ''));
    RETURN coalesce(NEW, OLD);
END
$$;
CREATE TRIGGER "row ""trigger""" BEFORE UPDATE OF name ON ancestor FOR EACH ROW WHEN (old.name IS DISTINCT FROM new.name) EXECUTE FUNCTION log_change('it''s', E'a\\b');
CREATE TRIGGER whole_statement AFTER INSERT ON by_range REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION log_change();
CREATE TRIGGER each_partition AFTER DELETE ON by_range FOR EACH ROW EXECUTE FUNCTION log_change();
CREATE TRIGGER instead INSTEAD OF INSERT ON stacked FOR EACH ROW EXECUTE FUNCTION log_change();
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON linked DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_change();
CREATE TRIGGER switched_off BEFORE INSERT ON linked FOR EACH ROW EXECUTE FUNCTION log_change();
ALTER TABLE linked DISABLE TRIGGER switched_off, ENABLE ALWAYS TRIGGER late;
COMMENT ON TRIGGER late ON linked IS 'at commit';

---------------------------------------------------------------------------------------------------- row security

CREATE TABLE secrets (id int PRIMARY KEY, owner name DEFAULT current_user, level int, body text);
INSERT INTO secrets VALUES (1, 'everything_reader', 1, 'for the reader'), (2, 'everything_login', 9, 'for nobody');
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON secrets USING (owner = current_user) WITH CHECK (level < 5);
CREATE POLICY "low ""levels""" ON secrets AS RESTRICTIVE FOR SELECT TO everything_reader, everything_login USING (level < 9);
COMMENT ON POLICY own_rows ON secrets IS 'one''s own';

---------------------------------------------------------------------------------------------------- foreign data

CREATE FOREIGN DATA WRAPPER plain_wrapper OPTIONS (debug 'true', "odd key" 'it''s');
CREATE SERVER plain_server TYPE 'odd' VERSION '1.2' FOREIGN DATA WRAPPER plain_wrapper OPTIONS (host 'db.invalid', note E'a\nb');
CREATE USER MAPPING FOR everything_login SERVER plain_server OPTIONS ("user" 'remote', password 'p''w"\');
CREATE USER MAPPING FOR PUBLIC SERVER plain_server;
CREATE FOREIGN TABLE elsewhere (id int OPTIONS (col 'ID') NOT NULL, v text DEFAULT 'x', CHECK (id > 0)) SERVER plain_server OPTIONS (tab '"T"');
COMMENT ON SERVER plain_server IS 'never reached';
COMMENT ON FOREIGN TABLE elsewhere IS 'far away';
\if :has_contrib
CREATE EXTENSION postgres_fdw WITH SCHEMA public;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'db.invalid', dbname 'x', fetch_size '50');
CREATE FOREIGN TABLE far_table (id int, v text OPTIONS (column_name 'w')) SERVER far OPTIONS (schema_name 's', table_name 't');
\endif

---------------------------------------------------------------------------------------------------- large objects

CREATE TABLE files (name text, content oid);
SELECT lo_create(424242), lo_create(424243), lo_create(424244);
SELECT lo_put(424242, 0, decode(string_agg(md5('lo' || n), ''), 'hex')) FROM generate_series(1, 8000) AS n;
SELECT lo_put(424244, 3000000, '\x00ff0a0d5c2e');
COMMENT ON LARGE OBJECT 424242 IS 'it''s large
and "commented"';
ALTER LARGE OBJECT 424243 OWNER TO everything_owner;
GRANT SELECT ON LARGE OBJECT 424242 TO everything_reader;
GRANT UPDATE ON LARGE OBJECT 424242 TO everything_login WITH GRANT OPTION;
INSERT INTO files VALUES ('noise', 424242), ('empty', 424243), ('hole of three million zeros', 424244);

---------------------------------------------------------------------------------------------------- publications

CREATE PUBLICATION all_of_it FOR ALL TABLES WITH (publish = 'insert');
CREATE PUBLICATION some_of_it FOR TABLE ONLY linked, circle_a WITH (publish = 'insert, update');
CREATE PUBLICATION partitions_of_it FOR TABLE by_range WITH (publish_via_partition_root);
\if :pg15
CREATE PUBLICATION rows_of_it FOR TABLE linked (id, label) WHERE (id > 1);
CREATE PUBLICATION schema_of_it FOR TABLES IN SCHEMA empty_schema, TABLE circle_b WHERE (id > 0);
\endif
COMMENT ON PUBLICATION some_of_it IS 'two tables';

---------------------------------------------------------------------------------------------------- owners and privileges

ALTER TABLE scalars OWNER TO everything_owner;
ALTER TABLE by_range OWNER TO everything_owner;
ALTER TABLE filled OWNER TO everything_owner;
ALTER FUNCTION people() OWNER TO "Everything ""quoted"" role é";
ALTER TYPE mood OWNER TO everything_owner;
GRANT CREATE, USAGE ON SCHEMA main TO everything_reader WITH GRANT OPTION;
GRANT ALL ON linked TO everything_reader;
GRANT SELECT (id, label), UPDATE (label) ON linked TO "Everything ""quoted"" role é" WITH GRANT OPTION;
GRANT INSERT, TRUNCATE ON audit TO PUBLIC;
REVOKE ALL ON secrets FROM CURRENT_USER;
GRANT USAGE ON SEQUENCE counter TO everything_reader;
REVOKE ALL ON FUNCTION rows_of(int) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE note_it(text) TO everything_reader;
GRANT USAGE ON TYPE address TO everything_reader;
REVOKE USAGE ON DOMAIN positive FROM PUBLIC;
GRANT USAGE ON FOREIGN DATA WRAPPER plain_wrapper TO everything_owner WITH GRANT OPTION;
GRANT USAGE ON FOREIGN SERVER plain_server TO everything_reader;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE plpgsql TO everything_owner;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO everything_reader;
\if :pg15
GRANT SET, ALTER SYSTEM ON PARAMETER log_min_duration_statement TO everything_reader;
\endif
\if :pg17
GRANT MAINTAIN ON linked TO everything_login;
\endif

---------------------------------------------------------------------------------------------------- the database itself
-- Settings that change how values are printed, for whoever reads them without setting his own.

ALTER DATABASE :"db" SET DateStyle = 'SQL, DMY';
ALTER DATABASE :"db" SET IntervalStyle = 'postgres_verbose';
ALTER DATABASE :"db" SET TimeZone = 'Asia/Kathmandu';
ALTER DATABASE :"db" SET extra_float_digits = 0;
ALTER DATABASE :"db" SET bytea_output = 'escape';
ALTER DATABASE :"db" SET search_path = main, public;
ALTER DATABASE :"db" SET my.own_setting = 'it''s "mine"';
ALTER DATABASE :"db" CONNECTION LIMIT 40;
GRANT CREATE ON DATABASE :"db" TO everything_owner;
REVOKE TEMPORARY ON DATABASE :"db" FROM PUBLIC;
COMMENT ON DATABASE :"db" IS 'one of everything; it''s "complete"';

CREATE FUNCTION watch_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tg_tag FROM pg_event_trigger_ddl_commands();
END
$$;
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE') EXECUTE FUNCTION watch_ddl();
CREATE EVENT TRIGGER switched_off ON sql_drop EXECUTE FUNCTION watch_ddl();
ALTER EVENT TRIGGER switched_off DISABLE;
COMMENT ON EVENT TRIGGER watch IS 'watches';

ANALYZE;
