//! What was not applied, and what operators wish about it. The statements are the same in either database, so they are
//! written once.

pub(super) mod rows;

use domain::OrderId;

/// A question for dead letters.
macro_rules! letters {
    ($which:literal) => {
        concat!(
            "select topic, partition_id, record_offset, digest, record_key, payload, headers, reason, detail, seen_at, ",
            "discarded_at, discard_reason from dead_letters where ",
            $which
        )
    };
}

/// A question for waiting events.
macro_rules! waiting {
    ($which:literal) => {
        concat!(
            "select order_id, version, digest, cause, topic, partition_id, record_offset, message, headers, parked_at, ",
            "discarded_at, discard_reason from parked where ",
            $which
        )
    };
}

/// A question for interventions.
macro_rules! wishes {
    ($which:literal) => {
        concat!(
            "select id, kind, target, reason, actor, requested_at, reached, outcome, done_at from interventions ",
            $which
        )
    };
}

/// The newest dead letters that were not discarded.
pub(super) const LETTERS: &str = letters!(
    "discarded_at is null \
    order by seen_at desc, topic desc, partition_id desc, record_offset desc limit $1"
);
/// The newest dead letters that were.
pub(super) const LETTERS_DISCARDED: &str = letters!(
    "discarded_at is not null \
    order by discarded_at desc, topic desc, partition_id desc, record_offset desc limit $1"
);
/// One dead letter.
pub(super) const LETTER: &str = letters!(
    "topic = $1 and partition_id = $2 \
    and record_offset = $3 and digest = $4"
);
/// The dead letters after one, oldest first. Discarded ones do not come back.
pub(super) const LETTERS_AFTER: &str = letters!(
    "discarded_at is null \
    and (topic, partition_id, record_offset, digest) > ($1, $2, $3, $4) \
    order by topic, partition_id, record_offset, digest limit $5"
);
/// The discarded ones between two offsets.
pub(super) const DISCARDED: &str = "select partition_id, record_offset, digest from dead_letters \
    where discarded_at is not null and topic = $1 and record_offset between $2 and $3";
/// What waits.
pub(super) const PARKED: &str = waiting!(
    "discarded_at is null \
    order by order_id, version, digest limit $1"
);
/// The waiting events that were discarded.
pub(super) const PARKED_DISCARDED: &str = waiting!(
    "discarded_at is not null \
    order by order_id, version, digest limit $1"
);
/// What waits or was discarded of an order, from a version on.
pub(super) const PARKED_OF: &str = waiting!("order_id = $1 and version >= $2 order by version, digest limit $3");
/// The orders of which something waits.
pub(super) const WAITING_ORDERS: &str = "select distinct order_id from parked where discarded_at is null \
    and order_id > $1 order by order_id limit $2";
/// The orders that have waited for a missing event since before a time.
pub(super) const HOLES: &str = "select distinct order_id from parked where cause = 'hole' and discarded_at is null \
    and parked_at <= $1 and order_id > $2 order by order_id limit $3";

/// One wish more, unless too many wait.
pub(super) const WISH: &str = "insert into interventions (id, kind, target, reason, actor, requested_at) \
    select $1, $2, $3, $4, $5, $6 where (select count(*) from interventions where done_at is null) < $7 \
    on conflict (id) do nothing";
/// One wish.
pub(super) const INTERVENTION: &str = wishes!("where id = $1");
/// The newest wishes.
pub(super) const INTERVENTIONS: &str = wishes!("order by id desc limit $1");
/// The wishes that another generation has to know: that something be discarded, and what was not granted yet. In the order
/// of asking.
pub(super) const LASTING: &str =
    wishes!("where (kind like 'discard-%' or done_at is null) and id > $1 order by id limit $2");
/// A wish of another generation.
pub(super) const ADOPT: &str = "insert into interventions (id, kind, target, reason, actor, requested_at) \
    values ($1, $2, $3, $4, $5, $6) on conflict (id) do nothing";
/// The wishes that wait, in the order of asking.
pub(super) const UNDONE: &str = wishes!("where done_at is null order by id limit $1");

/// Since when dead letters after one are kept, by their names.
pub(super) const LETTER_AGES: &str = "select topic, partition_id, record_offset, digest, seen_at from dead_letters \
    where (topic, partition_id, record_offset, digest) > ($1, $2, $3, $4) \
    order by topic, partition_id, record_offset, digest limit $5";
/// Since when events after one wait, by their names.
pub(super) const PARKED_AGES: &str = "select order_id, version, digest, parked_at from parked \
    where (order_id, version, digest) > ($1, $2, $3) order by order_id, version, digest limit $4";
/// Another generation knew it earlier.
pub(super) const LETTER_KNOWN: &str = "update dead_letters set seen_at = $5 where topic = $1 and partition_id = $2 \
    and record_offset = $3 and digest = $4 and seen_at > $5";
pub(super) const PARKED_KNOWN: &str = "update parked set parked_at = $4 where order_id = $1 and version = $2 and digest = $3 \
    and parked_at > $4";

/// The name of a dead letter, and since when it is kept, in microseconds.
pub(crate) type LetterAge = (String, i32, i64, Vec<u8>, i64);
/// The name of a waiting event, and since when it waits, in microseconds.
pub(crate) type ParkedAge = (Vec<u8>, i64, Vec<u8>, i64);

/// Binds the name of a dead letter to the first four parameters.
macro_rules! bind_key {
    ($question:expr, $key:expr) => {
        $question.bind(&$key.topic).bind($key.position.partition).bind($key.position.offset).bind($key.digest.to_vec())
    };
}

/// The questions of operators.
macro_rules! ask_for_intake {
    ($store:ty) => {
        impl $store {
            pub(crate) async fn backlog(&self) -> Result<Backlog, Error> {
                let most = i64::from(BACKLOG_COUNT_MAX);
                Ok(record::backlog(sqlx::query_as(record::BACKLOG).bind(most).fetch_one(&self.readers).await?))
            }

            pub(crate) async fn dead_letters(&self, discarded: bool, limit: u32) -> Result<Vec<ListedLetter>, Error> {
                let statement = if discarded { intake::LETTERS_DISCARDED } else { intake::LETTERS };
                let rows = sqlx::query_as(statement).bind(i64::from(limit)).fetch_all(&self.readers).await?;
                record::all(rows, rows::letter)
            }

            pub(crate) async fn dead_letter(&self, key: &LetterKey) -> Result<Option<ListedLetter>, Error> {
                let found =
                    intake::bind_key!(sqlx::query_as(intake::LETTER), key).fetch_optional(&self.readers).await?;
                found.map(rows::letter).transpose()
            }

            pub(crate) async fn parked(&self, discarded: bool, limit: u32) -> Result<Vec<ListedParked>, Error> {
                let statement = if discarded { intake::PARKED_DISCARDED } else { intake::PARKED };
                let rows = sqlx::query_as(statement).bind(i64::from(limit)).fetch_all(&self.readers).await?;
                record::all(rows, rows::parked)
            }

            pub(crate) async fn parked_of(
                &self,
                order: OrderId,
                from: Version,
                limit: u32,
            ) -> Result<Vec<ListedParked>, Error> {
                let question = sqlx::query_as(intake::PARKED_OF).bind(order.0.as_bytes().to_vec());
                let question = question.bind(i64::from(from.0)).bind(i64::from(limit));
                record::all(question.fetch_all(&self.readers).await?, rows::parked)
            }

            pub(crate) async fn holes(
                &self,
                parked_until_micros: i64,
                after: Option<OrderId>,
                limit: u32,
            ) -> Result<Vec<OrderId>, Error> {
                let question = sqlx::query_scalar(intake::HOLES).bind(parked_until_micros);
                let question = question.bind(intake::after(after)).bind(i64::from(limit));
                record::all(question.fetch_all(&self.readers).await?, record::order_id)
            }

            pub(crate) async fn intervention(&self, id: Uuid) -> Result<Option<Intervention>, Error> {
                let question = sqlx::query_as(intake::INTERVENTION).bind(id.as_bytes().to_vec());
                question.fetch_optional(&self.readers).await?.map(rows::intervention).transpose()
            }

            pub(crate) async fn lasting_wishes(&self, after: Uuid, limit: u32) -> Result<Vec<Intervention>, Error> {
                let question = sqlx::query_as(intake::LASTING).bind(after.as_bytes().to_vec()).bind(i64::from(limit));
                record::all(question.fetch_all(&self.readers).await?, rows::intervention)
            }

            pub(crate) async fn letter_ages(&self, after: &LetterAge, limit: u32) -> Result<Vec<LetterAge>, Error> {
                let (topic, partition, offset, digest, _age) = after;
                let question =
                    sqlx::query_as(intake::LETTER_AGES).bind(topic).bind(partition).bind(offset).bind(digest);
                Ok(question.bind(i64::from(limit)).fetch_all(&self.readers).await?)
            }

            pub(crate) async fn parked_ages(&self, after: &ParkedAge, limit: u32) -> Result<Vec<ParkedAge>, Error> {
                let (order, version, digest, _age) = after;
                let question = sqlx::query_as(intake::PARKED_AGES).bind(order).bind(version).bind(digest);
                Ok(question.bind(i64::from(limit)).fetch_all(&self.readers).await?)
            }

            pub(crate) async fn interventions(&self, limit: u32) -> Result<Vec<Intervention>, Error> {
                let question = sqlx::query_as(intake::INTERVENTIONS).bind(i64::from(limit));
                record::all(question.fetch_all(&self.readers).await?, rows::intervention)
            }
        }
    };
}

/// The projector's part, for which each store brings its own `asking`.
macro_rules! keep_intake {
    ($transaction:ty) => {
        impl $transaction {
            pub(crate) async fn undone(&mut self, limit: u32) -> Result<Vec<Intervention>, Error> {
                let question = asking::query_as(intake::UNDONE).bind(i64::from(limit));
                record::all(question.fetch_all(&mut *self.inner).await?, rows::intervention)
            }

            pub(crate) async fn adopt(&mut self, wish: &Intervention) -> Result<(), Error> {
                asking::query(intake::ADOPT)
                    .bind(wish.id.as_bytes().to_vec())
                    .bind(&wish.kind)
                    .bind(&wish.target)
                    .bind(&wish.reason)
                    .bind(&wish.actor)
                    .bind(wish.requested_at_micros)
                    .execute(&mut *self.inner)
                    .await?;
                Ok(())
            }

            pub(crate) async fn letter_known(&mut self, age: LetterAge) -> Result<(), Error> {
                let (topic, partition, offset, digest, since) = age;
                let statement =
                    asking::query(intake::LETTER_KNOWN).bind(topic).bind(partition).bind(offset).bind(digest);
                statement.bind(since).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn parked_known(&mut self, age: ParkedAge) -> Result<(), Error> {
                let (order, version, digest, since) = age;
                let statement = asking::query(intake::PARKED_KNOWN).bind(order).bind(version).bind(digest);
                statement.bind(since).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn progressed(&mut self, wish: &Intervention) -> Result<(), Error> {
                asking::query("update interventions set reached = $2, outcome = $3, done_at = $4 where id = $1")
                    .bind(wish.id.as_bytes().to_vec())
                    .bind(&wish.reached)
                    .bind(serde_json::to_string(&wish.outcome)?)
                    .bind(wish.done_at_micros)
                    .execute(&mut *self.inner)
                    .await?;
                Ok(())
            }

            pub(crate) async fn dead_letter(&mut self, key: &LetterKey) -> Result<Option<StoredLetter>, Error> {
                let found =
                    intake::bind_key!(asking::query_as(intake::LETTER), key).fetch_optional(&mut *self.inner).await?;
                found.map(rows::stored).transpose()
            }

            pub(crate) async fn dead_letters_after(
                &mut self,
                key: &LetterKey,
                limit: u32,
            ) -> Result<Vec<StoredLetter>, Error> {
                let question = intake::bind_key!(asking::query_as(intake::LETTERS_AFTER), key).bind(i64::from(limit));
                record::all(question.fetch_all(&mut *self.inner).await?, rows::stored)
            }

            pub(crate) async fn discarded_letters(
                &mut self,
                topic: &str,
                offsets: (i64, i64),
            ) -> Result<BTreeSet<(Position, Digest)>, Error> {
                let question = asking::query_as(intake::DISCARDED).bind(topic).bind(offsets.0).bind(offsets.1);
                record::all(question.fetch_all(&mut *self.inner).await?, rows::discarded)
            }

            pub(crate) async fn remove_letter(&mut self, key: &LetterKey) -> Result<(), Error> {
                let statement = "delete from dead_letters where topic = $1 and partition_id = $2 \
                    and record_offset = $3 and digest = $4";
                intake::bind_key!(asking::query(statement), key).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn renew_letter(
                &mut self,
                key: &LetterKey,
                reason: &str,
                detail: &str,
            ) -> Result<(), Error> {
                let statement = "update dead_letters set reason = $5, detail = $6 where topic = $1 \
                    and partition_id = $2 and record_offset = $3 and digest = $4";
                let change = intake::bind_key!(asking::query(statement), key).bind(reason).bind(detail);
                change.execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn discard_letter(
                &mut self,
                key: &LetterKey,
                reason: &str,
                now_micros: i64,
            ) -> Result<u64, Error> {
                let statement = "update dead_letters set discarded_at = $5, discard_reason = $6 where topic = $1 \
                    and partition_id = $2 and record_offset = $3 and digest = $4 and discarded_at is null";
                let change = intake::bind_key!(asking::query(statement), key).bind(now_micros).bind(reason);
                Ok(change.execute(&mut *self.inner).await?.rows_affected())
            }

            pub(crate) async fn discard_parked(
                &mut self,
                (order_id, version, digest): ParkedKey,
                reason: &str,
                now_micros: i64,
            ) -> Result<u64, Error> {
                let statement = "update parked set discarded_at = $4, discard_reason = $5 where order_id = $1 \
                    and version = $2 and digest = $3 and discarded_at is null";
                let change = asking::query(statement).bind(order_id.0.as_bytes().to_vec()).bind(i64::from(version.0));
                let change = change.bind(digest.to_vec()).bind(now_micros).bind(reason);
                Ok(change.execute(&mut *self.inner).await?.rows_affected())
            }

            pub(crate) async fn waiting_orders(
                &mut self,
                after: Option<OrderId>,
                limit: u32,
            ) -> Result<Vec<OrderId>, Error> {
                let question = asking::query_scalar(intake::WAITING_ORDERS).bind(intake::after(after));
                record::all(question.bind(i64::from(limit)).fetch_all(&mut *self.inner).await?, record::order_id)
            }
        }
    };
}

/// Who writes wishes down.
macro_rules! write_wishes {
    ($connection:expr, $wish:expr, $undone_max:expr) => {{
        let written = sqlx::query(intake::WISH)
            .bind($wish.id.as_bytes().to_vec())
            .bind(&$wish.kind)
            .bind(&$wish.target)
            .bind(&$wish.reason)
            .bind(&$wish.actor)
            .bind($wish.requested_at_micros)
            .bind($undone_max)
            .execute($connection)
            .await?;
        Ok(written.rows_affected() == 1)
    }};
}

pub(super) use {ask_for_intake, bind_key, keep_intake, write_wishes};

/// Before every id, or after one.
pub(super) fn after(order: Option<OrderId>) -> Vec<u8> {
    order.map_or_else(Vec::new, |order| order.0.as_bytes().to_vec())
}
