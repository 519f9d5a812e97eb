-- As in migrations/query/sqlite; a generation is a schema here, and a file there.
-- What these tables are: a generation of the read model. One row, written when they are first written to.
create table generation (
    -- Counts up from 1.
    number       bigint not null primary key,
    -- Which revision of each projection fills the tables, as a JSON object. Another revision means other rows.
    revisions    text    not null,
    -- building: it is not to be served. complete: it was verified, or is the first one.
    state        text    not null,
    -- Where it is built from: topic or log.
    source       text    not null,
    -- Who builds it, and goes on after a restart: service or command.
    builder      text    not null,
    -- Microseconds since 1970, by the builder's clock.
    started_at   bigint not null,
    completed_at bigint,
    -- While it is built: records read, records there are, and when that was told.
    done         bigint not null default 0,
    total        bigint not null default 0,
    told_at      bigint not null default 0,
    -- Built from the log: where its reading goes on, and where the topic is read from then on.
    log_after    text,
    log_anchors  text,
    -- The indexes that are made when the rows are in, as a JSON array of statements.
    deferred     text    not null default '[]',
    -- What the verification counted, as a JSON object.
    report       text
);

-- Which generation is served. Every generation has this table; the one of the first generation counts.
create table live_generation (
    number   bigint not null,
    -- The one that was served before, for a way back.
    previous bigint,
    -- Microseconds since 1970.
    since    bigint not null
);

insert into live_generation (number, previous, since) values (1, null, 0);

-- Rows that are older than this table were made by these revisions.
insert into generation (number, revisions, state, source, builder, started_at)
select 1, '{"customers":1,"daily_sales":1,"orders":1,"product_demand":1}', 'complete', 'topic', 'service', 0
where exists (select 1 from checkpoints);
