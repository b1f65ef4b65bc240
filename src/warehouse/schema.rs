use tokio_postgres::Client;

use super::dialect;

/// In order; what was released is never changed. The n-th makes version n.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_star_schema.sql")];

/// Why a database's schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the warehouse's schema is version {0}, newer than this kassa knows; install the newer kassa")]
    Newer(i32),
    #[error("cannot bring the warehouse's schema up to date")]
    Sql(#[from] tokio_postgres::Error),
}

/// Brings the schema up to date. Several receivers may do so at once.
pub(super) async fn migrate(client: &mut Client) -> Result<(), SchemaError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(dialect::LOCK).await?;
    transaction
        .batch_execute(
            "create table if not exists kassa_schema (version integer not null, applied_at timestamptz not null)",
        )
        .await?;
    let row = transaction.query_one("select coalesce(max(version), 0) from kassa_schema", &[]).await?;
    let version: i32 = row.get(0);
    let applied = usize::try_from(version).unwrap_or(0);
    if applied > MIGRATIONS.len() {
        return Err(SchemaError::Newer(version));
    }
    for (version, migration) in (1i32..).zip(MIGRATIONS).skip(applied) {
        transaction.batch_execute(migration).await?;
        transaction.execute("insert into kassa_schema values ($1, now())", &[&version]).await?;
        tracing::info!(version, "the warehouse's schema was brought up to date");
    }
    transaction.commit().await?;
    Ok(())
}
