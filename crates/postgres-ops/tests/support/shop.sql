CREATE SCHEMA "We""ird sch";
CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric);
INSERT INTO orders SELECT n, 'note ' || n || E'\nline\\.\t', n * 1.5 FROM generate_series(1, 3000) n;
CREATE INDEX orders_note ON orders (note);
COMMENT ON TABLE orders IS 'what was sold';
COMMENT ON INDEX orders_note IS 'by note';
ALTER TABLE orders ADD CONSTRAINT positive CHECK (id > 0) NOT VALID;
ALTER TABLE orders ADD CONSTRAINT orders_unique UNIQUE (note, id);
CREATE VIEW all_orders AS SELECT * FROM orders;
CREATE MATERIALIZED VIEW order_count AS SELECT count(*) FROM orders;
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS 'begin return new; end';
CREATE TRIGGER guard BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION guard();
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON orders USING (true);
GRANT SELECT ON orders TO PUBLIC;

CREATE TABLE "We""ird sch"."T b$*.?| FROM stdin;" (
    id int PRIMARY KEY REFERENCES orders,
    "c o""l (x, "" FROM stdin; y" text,
    made int GENERATED ALWAYS AS (id + 1) STORED
);
INSERT INTO "We""ird sch"."T b$*.?| FROM stdin;" (id, "c o""l (x, "" FROM stdin; y") VALUES (1, '\.'), (2, NULL), (3, '');
CREATE TABLE "line
break; 1" (a int);
INSERT INTO "line
break; 1" VALUES (1);

CREATE TABLE no_column ();
INSERT INTO no_column DEFAULT VALUES;
INSERT INTO no_column DEFAULT VALUES;
CREATE TABLE no_row (a text);
CREATE TABLE one_column (a text);
INSERT INTO one_column VALUES (''), (''), ('\.'), (E'\n'), (NULL), ('\'), ('last');
CREATE TABLE long_rows (id int, a text, b bytea);
INSERT INTO long_rows SELECT n, repeat('long ', n * 20000), decode(repeat('00ff0a5c', 5000), 'hex') FROM generate_series(1, 3) n;

CREATE TABLE measured (day int, v text) PARTITION BY RANGE (day);
CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM (0) TO (10);
CREATE TABLE measured_2 PARTITION OF measured FOR VALUES FROM (10) TO (20);
CREATE INDEX ON measured (v);
INSERT INTO measured SELECT n, 'x' FROM generate_series(0, 19) n;
CREATE TABLE parent (a int);
CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2, 3);

SELECT lo_from_bytea(0, decode(repeat('00ff0a', 20000), 'hex'));
SELECT lo_from_bytea(3000000000, 'x');
SELECT lo_from_bytea(0, '');
