//! What a generation tells about itself, and what its builder keeps. The statements are the same in either database, so
//! they are written once.

use domain::Currency;

use super::Error;
use crate::generation::{Builder, Built, Generation, Number, Revisions, Source, State};

/// `number, revisions, state, source, builder, started_at, completed_at, done, total, told_at, report`.
pub(super) type GenerationRecord =
    (i64, String, String, String, String, i64, Option<i64>, i64, i64, i64, Option<String>);

pub(super) const GENERATION: &str = "select number, revisions, state, source, builder, started_at, completed_at, done, \
    total, told_at, report from generation";
pub(super) const BEGIN: &str = "insert into generation (number, revisions, state, source, builder, started_at) \
    select $1, $2, $3, $4, $5, $6 where not exists (select 1 from generation)";
pub(super) const RECORD_CURRENCY: &str = "update generation set default_currency = $1 where default_currency is null";
pub(super) const CURRENCY: &str = "select default_currency from generation";
pub(super) const TELL: &str = "update generation set done = $1, total = $2, told_at = $3";
pub(super) const COMPLETE: &str = "update generation set state = 'complete', completed_at = $1, report = $2";
pub(super) const CONDEMN: &str = "update generation set report = $1";
pub(super) const LOG: &str = "select log_after, log_anchors from generation";
pub(super) const LOG_AFTER: &str = "update generation set log_after = $1";
pub(super) const LOG_ANCHORS: &str = "update generation set log_anchors = $1";
pub(super) const DEFERRED: &str = "select deferred from generation";
pub(super) const DEFER: &str = "update generation set deferred = $1";

/// The API's question.
macro_rules! tell_generation {
    ($store:ty) => {
        impl $store {
            pub(crate) async fn generation(&self) -> Result<Option<Generation>, Error> {
                let found = sqlx::query_as(keeping::GENERATION).fetch_optional(&self.readers).await?;
                found.map(keeping::generation).transpose()
            }

            pub(crate) async fn fits_currency(&self, currency: Currency) -> Result<(), Error> {
                let recorded = sqlx::query_scalar(keeping::CURRENCY).fetch_optional(&self.readers).await?;
                keeping::same_currency(recorded.flatten(), currency)
            }
        }
    };
}

/// The builder's part, for which each store brings its own `asking`.
macro_rules! keep_generation {
    ($transaction:ty) => {
        impl $transaction {
            pub(crate) async fn generation(&mut self) -> Result<Option<Generation>, Error> {
                let found = asking::query_as(keeping::GENERATION).fetch_optional(&mut *self.inner).await?;
                found.map(keeping::generation).transpose()
            }

            pub(crate) async fn begin_generation(&mut self, begun: &Generation) -> Result<(), Error> {
                asking::query(keeping::BEGIN)
                    .bind(begun.number)
                    .bind(begun.revisions.to_json())
                    .bind(begun.state.as_str())
                    .bind(begun.source.as_str())
                    .bind(begun.builder.as_str())
                    .bind(begun.started_at_micros)
                    .execute(&mut *self.inner)
                    .await?;
                Ok(())
            }

            pub(crate) async fn settle_currency(&mut self, currency: Currency) -> Result<(), Error> {
                asking::query(keeping::RECORD_CURRENCY).bind(currency.code()).execute(&mut *self.inner).await?;
                let recorded: Option<Option<String>> =
                    asking::query_scalar(keeping::CURRENCY).fetch_optional(&mut *self.inner).await?;
                keeping::same_currency(recorded.flatten(), currency)
            }

            pub(crate) async fn tell_built(&mut self, built: Built) -> Result<(), Error> {
                let Built { done, total, told_at_micros } = built;
                asking::query(keeping::TELL)
                    .bind(done)
                    .bind(total)
                    .bind(told_at_micros)
                    .execute(&mut *self.inner)
                    .await?;
                Ok(())
            }

            pub(crate) async fn complete_generation(&mut self, now_micros: i64, report: &str) -> Result<(), Error> {
                asking::query(keeping::COMPLETE).bind(now_micros).bind(report).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn condemn_generation(&mut self, report: &str) -> Result<(), Error> {
                asking::query(keeping::CONDEMN).bind(report).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn log_state(&mut self) -> Result<(Option<String>, Option<String>), Error> {
                let found = asking::query_as(keeping::LOG).fetch_optional(&mut *self.inner).await?;
                Ok(found.unwrap_or_default())
            }

            pub(crate) async fn keep_log_after(&mut self, after: Option<&str>) -> Result<(), Error> {
                asking::query(keeping::LOG_AFTER).bind(after).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn keep_log_anchors(&mut self, anchors: &str) -> Result<(), Error> {
                asking::query(keeping::LOG_ANCHORS).bind(anchors).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn defer_bulk(&mut self) -> Result<(), Error> {
                let indexes: Vec<(String, String)> = asking::query_as(DEFERRABLE).fetch_all(&mut *self.inner).await?;
                let mut deferred = self.deferred().await?;
                deferred.extend(PRODUCTS.map(str::to_owned));
                for (name, statement) in indexes {
                    asking::query(AssertSqlSafe(format!("drop index {name}"))).execute(&mut *self.inner).await?;
                    deferred.push(statement);
                }
                asking::query(keeping::DEFER).bind(serde_json::to_string(&deferred)?).execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn make_up(&mut self) -> Result<(), Error> {
                for statement in PATIENT {
                    asking::query(*statement).execute(&mut *self.inner).await?;
                }
                for statement in self.deferred().await? {
                    asking::query(AssertSqlSafe(statement)).execute(&mut *self.inner).await?;
                }
                asking::query(keeping::DEFER).bind("[]").execute(&mut *self.inner).await?;
                Ok(())
            }

            pub(crate) async fn defers_products(&mut self) -> Result<bool, Error> {
                Ok(self.deferred().await?.iter().any(|statement| PRODUCTS.contains(&statement.as_str())))
            }

            async fn deferred(&mut self) -> Result<Vec<String>, Error> {
                let text: Option<String> =
                    asking::query_scalar(keeping::DEFERRED).fetch_optional(&mut *self.inner).await?;
                let deferred = text.map(|text| serde_json::from_str(&text)).transpose();
                Ok(deferred.map_err(Error::corrupt("the deferred indexes"))?.unwrap_or_default())
            }
        }
    };
}

pub(super) use {keep_generation, tell_generation};

pub(super) fn generation(record: GenerationRecord) -> Result<Generation, Error> {
    let (number, revisions, state, source, builder, started_at, completed_at, done, total, told_at, report) = record;
    let named = |what: &str| format!("an unknown {what}");
    Ok(Generation {
        number,
        revisions: serde_json::from_str::<Revisions>(&revisions).map_err(Error::corrupt("a generation's revisions"))?,
        state: State::parse(&state).ok_or_else(|| named("state")).map_err(Error::corrupt("a generation"))?,
        source: Source::parse(&source).ok_or_else(|| named("source")).map_err(Error::corrupt("a generation"))?,
        builder: Builder::parse(&builder).ok_or_else(|| named("builder")).map_err(Error::corrupt("a generation"))?,
        started_at_micros: started_at,
        completed_at_micros: completed_at,
        built: Built { done, total, told_at_micros: told_at },
        report,
    })
}

/// Refuses a default currency that is not the one that the generation was filled with: one column would hold amounts of two
/// meanings.
pub(super) fn same_currency(recorded: Option<String>, ours: Currency) -> Result<(), Error> {
    match recorded {
        Some(recorded) if recorded != ours.code() => Err(Error::Unusable {
            reason: format!(
                "its rows were made with DEFAULT_CURRENCY={recorded}, and it is {ours} now: set it back, or run `order-query rebuild`"
            ),
        }),
        _ => Ok(()),
    }
}

/// The pointer, as it is stored: `number, previous`.
pub(super) type LiveRecord = (Number, Option<Number>);
