//! What Postgres is told that Redshift does not take.
//!
//! Tried with Postgres 15. Not tried with Redshift, which speaks the same protocol and, by its manual
//! (<https://docs.aws.amazon.com/redshift/latest/dg/c_redshift-and-postgres-sql.html>), would differ here and
//! in `migrations/`:
//!
//! - `COPY`: there is no `COPY … FROM STDIN`. Rows go to S3 and are copied from there into a staging table,
//!   and what is not there is inserted: `insert into fact_sale_line select … where not exists (…)`.
//! - Primary keys are not enforced, so that insert must be under a lock: `lock table fact_sale_line`.
//! - `THERE` is part of that insert. `LOCK`: no advisory locks; `lock table kassa_schema` does the same.
//! - `SESSION`: of these only `statement_timeout` exists.
//! - `migrations/`: a plain `numeric` has no decimals there; `numeric(29,17)` holds whatever a till may send.
//!
//! Here the primary key makes both unnecessary. Copying past a staging table straight into the fact table
//! takes Postgres a fifth less time.

/// How a connection is set up.
///
/// Looking up a sale must take the primary key's index, whatever the fact table's statistics say: a plan made
/// while it was small would go on reading all of it.
pub(super) const SESSION: &str = "
    set enable_seqscan = off; set jit = off; set timezone = 'UTC';
    set statement_timeout = '20s'; set idle_in_transaction_session_timeout = '60s'";

/// Which of these sales, by shop and id, are there. Every sale has a first line; a subquery and no join, so that
/// each is looked up by itself.
pub(super) const THERE: &str = "
    select came.shop_key, came.sale_id
    from unnest($1::integer[], $2::varchar[]) as came (shop_key, sale_id)
    where 1 = (select there.line_no from fact_sale_line there
               where there.shop_key = came.shop_key and there.sale_id = came.sale_id and there.line_no = 1)";

/// Lines, with the columns as [`Rows`](super::copy::Rows) has them.
pub(super) const COPY: &str = "
    copy fact_sale_line (shop_key, sale_id, line_no, item_key, date_key, sold_at, accepted_at,
                         gross_number, gross_turnover, till, seq)
    from stdin (format binary)";

/// Held by one connection at a time, of however many receivers, until its transaction ends: for what is done
/// once, such as a new item's row. Loading does not take it, nor does reading.
pub(super) const LOCK: &str = "select pg_advisory_xact_lock(1802597217)";
