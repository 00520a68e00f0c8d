PRAGMA application_id = 1651471460;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE desired (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        name TEXT NOT NULL,
        wanted INTEGER NOT NULL,
        spec TEXT NOT NULL,
        port INTEGER UNIQUE,
        source TEXT,
        created_at REAL NOT NULL
    ) STRICT
    ;
INSERT INTO "desired" VALUES('alice/shop','alice','shop',1,'{"command":["python3","-u","bot.py"],"directory":"/srv/alice/shop","template":"messenger","env":{"PREFIX":"!","GREETING":"gr\u00fc\u00df dich"},"labels":{"tier":"free"},"memory_mb":256,"restart":"on-failure","stop_signal":"SIGINT","stop_grace_s":2.5,"port":true,"probe":{"kind":"http","url":"http://127.0.0.1:{port}/health","interval_s":30.0,"timeout_s":5.0,"failures":3,"start_grace_s":20.0},"secret_names":["APPSTATE","TOKEN"],"release":"0123abcd"}',20001,'/srv/fleet.toml',1699999999.25);
INSERT INTO "desired" VALUES('bob/news','bob','news',1,'{"command":["node","index.js"],"directory":"/srv/bob/news","env":{},"labels":{},"restart":"always","stop_signal":"SIGTERM","stop_grace_s":10.0,"port":false,"secret_names":[],"release":null}',NULL,NULL,1700000000.0);
INSERT INTO "desired" VALUES('carol/idle','carol','idle',0,'{"command":["sleep","inf"],"directory":"/","env":{},"labels":{},"restart":"always","stop_signal":"SIGTERM","stop_grace_s":10.0,"port":false,"secret_names":[],"release":null}',NULL,NULL,1700000001.0);
CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        generation INTEGER
    ) STRICT
    ;
INSERT INTO "events" VALUES(1,NULL,1699999000.0,'daemon','botd started',NULL);
INSERT INTO "events" VALUES(2,'alice/shop',1700000000.5,'exited','exited with code 3 after 12.5 s',6);
INSERT INTO "events" VALUES(3,'alice/shop',1700000001.0,'started','life 7 started, pid 4242',7);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO "meta" VALUES('note','kept');
CREATE TABLE observed (
        id TEXT PRIMARY KEY REFERENCES desired (id) ON DELETE CASCADE,
        boot_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        phase TEXT NOT NULL,
        state TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "observed" VALUES('alice/shop','6d1f2c3e-boot',7,'running','{"pid":4242,"since":1234.5,"started_at":1234.25,"settled":true,"health":"healthy","health_note":"200 OK","attempts":2,"restarts":5,"deadline":["reset",1300.0],"last_exit":{"code":3,"at_wall":1700000000.5,"ran_s":12.5},"recovery":{"attempts":5,"successes":4,"failures":1,"total_s":9.5,"worst_s":4.25}}');
INSERT INTO "observed" VALUES('bob/news','6d1f2c3e-boot',4,'backoff','{"since":77.125,"attempts":3,"restarts":3,"deadline":["retry",78.125],"reason":"killed by SIGSEGV; again","last_exit":{"signal":11,"at_wall":1700000100.0,"ran_s":0.5,"cause":"memory"},"outage_at":70.0,"recovery":{"attempts":3,"successes":1,"failures":2,"total_s":1.5,"worst_s":1.5}}');
INSERT INTO "observed" VALUES('carol/idle','',0,'stopped','{}');
CREATE TABLE releases (
        template TEXT NOT NULL,
        hash TEXT NOT NULL,
        manifest TEXT NOT NULL,
        files INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        added_at REAL NOT NULL,
        PRIMARY KEY (template, hash)
    ) STRICT
    ;
INSERT INTO "releases" VALUES('messenger','0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a','{"command": ["node", "index.js"]}',3000,35000000,1700000002.0);
INSERT INTO "releases" VALUES('messenger','1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b','{"command": ["node", "gr\u00fc\u00df"]}',3001,35000001,1700000003.5);
CREATE TABLE requests (key TEXT PRIMARY KEY, at REAL NOT NULL, answer TEXT) STRICT;
INSERT INTO "requests" VALUES('0:finished',1700000000.0,'{"ok":true}');
INSERT INTO "requests" VALUES('0:begun',1700000001.0,NULL);
CREATE TABLE rolls (
        id INTEGER PRIMARY KEY,
        template TEXT NOT NULL,
        state TEXT NOT NULL,
        body TEXT NOT NULL,
        at REAL NOT NULL
    ) STRICT
    ;
INSERT INTO "rolls" VALUES(7,'messenger','moving','{"batch":1}',1700000004.0);
CREATE TABLE secrets (
        id TEXT NOT NULL REFERENCES desired (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (id, name)
    ) STRICT
    ;
INSERT INTO "secrets" VALUES('alice/shop','APPSTATE',X'5B7B226B6579223A2022635F75736572227D5D');
INSERT INTO "secrets" VALUES('alice/shop','TOKEN',X'706C616365686F6C6465722D76616C7565');
CREATE TABLE templates (
        name TEXT PRIMARY KEY,
        release TEXT NOT NULL,
        previous TEXT,
        source TEXT,
        updated_at REAL NOT NULL
    ) STRICT
    ;
INSERT INTO "templates" VALUES('messenger','1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b','0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a','/srv/messenger',1700000003.5);
CREATE TABLE trash (key TEXT PRIMARY KEY, id TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL) STRICT;
INSERT INTO "trash" VALUES('a1b2c3','bob/gone','{"bytes":17}',1700000006.0);
CREATE TABLE usage (id TEXT PRIMARY KEY, body TEXT NOT NULL, at REAL NOT NULL) STRICT;
INSERT INTO "usage" VALUES('alice/shop','{"bytes":4096}',1700000005.0);
CREATE INDEX desired_source ON desired (source) WHERE source IS NOT NULL;
CREATE INDEX events_of_bot ON events (id, seq);
CREATE INDEX requests_at ON requests (at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',3);
COMMIT;
