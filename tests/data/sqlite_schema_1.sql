BEGIN TRANSACTION;
CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY NOT NULL,
        uid TEXT NOT NULL,
        fence INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        expire_time INTEGER,
        deleted_at INTEGER,
        purging INTEGER NOT NULL,
        active_turn_id TEXT,
        active_state TEXT,
        active_lease_id TEXT,
        active_fence INTEGER,
        active_attempt INTEGER,
        active_beat INTEGER,
        active_released INTEGER,
        active_cancel INTEGER,
        doc TEXT NOT NULL,
        active TEXT,
        active_ending TEXT,
        active_parts TEXT
    );
INSERT INTO "sessions" VALUES('plain','u1',0,0,1772368200124,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"owner":{"tenant":"default","subject":"anonymous"},"create_time":"2026-03-01T12:30:00.123000+00:00","settings":{},"settings_version":1}',NULL,NULL,NULL);
INSERT INTO "sessions" VALUES('full','u2',2,4,1772368200124,1806928200123,NULL,0,'turn3','ENDED','lease1',2,1,0,0,0,'{"owner":{"tenant":"default","subject":"anonymous"},"create_time":"2026-03-01T12:30:00.123000+00:00","title":"a\u0000title","labels":[["a","b"],["c.d","\u0000"]],"instructions":"be brief","settings":{"model":"some-model","temperature":0.5,"top_p":1.0,"max_output_tokens":100,"seed":7,"stop_sequences":["stop","¶"]},"settings_version":3}','{"request_key":"c:request3","user_text":"question 3","sent_settings":{"temperature":0.5},"settings":{"model":"some-model","temperature":0.5,"top_p":1.0,"max_output_tokens":100,"seed":7,"stop_sequences":["stop","¶"]},"first_seq":3,"create_time":"2026-03-01T12:30:00.123000+00:00","on_disconnect":"CONTINUE","deadline":"2026-03-01T12:35:00.123000+00:00"}','{"state":"COMPLETED","text":"line\nline\r\nline line lineline\u000b\f\u001c","n":2,"last_seq":4,"fence":1,"end_time":"2026-03-01T12:30:00.124000+00:00","finish_reason":"STOP","usage":{"input_tokens":1,"output_tokens":2},"model":"some-model-1"}','');
INSERT INTO "sessions" VALUES('running','u3',1,0,1772368200124,NULL,NULL,0,'turn1','RUNNING','lease1',1,1,2,0,0,'{"owner":{"tenant":"default","subject":"anonymous"},"create_time":"2026-03-01T12:30:00.123000+00:00","settings":{},"settings_version":1}','{"request_key":"c:request1","user_text":"question 1","sent_settings":{"temperature":0.5},"settings":{"model":"some-model","temperature":0.5,"top_p":1.0,"max_output_tokens":100,"seed":7,"stop_sequences":["stop","¶"]},"first_seq":1,"create_time":"2026-03-01T12:30:00.123000+00:00","on_disconnect":"CONTINUE","deadline":"2026-03-01T12:35:00.123000+00:00"}',NULL,'"one"
"two"
');
INSERT INTO "sessions" VALUES('deleted','u4',0,0,1772368200124,NULL,1772368200123,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"owner":{"tenant":"default","subject":"anonymous"},"create_time":"2026-03-01T12:30:00.123000+00:00","settings":{},"settings_version":1}',NULL,NULL,NULL);
CREATE TABLE turns (
        uid TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        turn_id TEXT NOT NULL,
        request_key TEXT NOT NULL,
        doc TEXT NOT NULL,
        PRIMARY KEY (uid, first_seq),
        UNIQUE (uid, request_key),
        UNIQUE (uid, turn_id)
    );
INSERT INTO "turns" VALUES('u2',1,'turn1','c:request1','{"_id":"u2:0000000001","uid":"u2","turn_id":"turn1","request_key":"c:request1","user_text":"question 1","sent_settings":{"temperature":0.5},"settings":{"model":"some-model","temperature":0.5,"top_p":1.0,"max_output_tokens":100,"seed":7,"stop_sequences":["stop","¶"]},"first_seq":1,"attempt":1,"create_time":"2026-03-01T12:30:00+00:00","ending":{"state":"COMPLETED","text":"first","n":2,"last_seq":2,"fence":1,"end_time":"2026-03-01T12:30:00.124000+00:00","finish_reason":"STOP","usage":{"input_tokens":1,"output_tokens":2},"model":"some-model-1"}}');
INSERT INTO "turns" VALUES('u2',3,'turn3','c:request3','{"_id":"u2:0000000003","uid":"u2","turn_id":"turn3","request_key":"c:request3","user_text":"question 3","sent_settings":{"temperature":0.5},"settings":{"model":"some-model","temperature":0.5,"top_p":1.0,"max_output_tokens":100,"seed":7,"stop_sequences":["stop","¶"]},"first_seq":3,"attempt":1,"create_time":"2026-03-02T12:30:00.123000+00:00","ending":{"state":"COMPLETED","text":"line\nline\r\nline line lineline\u000b\f\u001c","n":2,"last_seq":4,"fence":1,"end_time":"2026-03-01T12:30:00.124000+00:00","finish_reason":"STOP","usage":{"input_tokens":1,"output_tokens":2},"model":"some-model-1"}}');
CREATE INDEX sessions_running ON sessions (session_id) WHERE active_state = 'RUNNING';
PRAGMA user_version = 1;
COMMIT;
