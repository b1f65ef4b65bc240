use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use kassa_bus::error::chain;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::dialect;
use super::dimensions;
use super::load::is_a_rule;
use super::schema::{SchemaError, migrate};
use crate::shops::Shops;

/// The warehouse's database: how to connect, and what is declared about shops and items.
pub struct Database {
    config: Config,
    tls: MakeRustlsConnect,
    declared: Option<Shops>,
}

/// Why a database cannot be reached or used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("--database is no postgres:// URL")]
    NoUrl(#[source] tokio_postgres::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    // At this point no sale was sent, so the error's text holds none.
    #[error("cannot use the database")]
    Unusable(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(
        "the warehouse's database, {place}, does not take sales; see that Postgres runs there, and that --database has the right \
         host, user, password and name"
    )]
    AtStart { place: String, source: Box<DatabaseError> },
}

impl Database {
    /// A database by its URL (<https://www.postgresql.org/docs/15/libpq-connect.html#LIBPQ-CONNSTRING>).
    ///
    /// Its certificate must be one the system trusts; the variable `SSL_CERT_FILE` names others. Unlike
    /// libpq, `sslmode=prefer` (what holds if the URL says nothing) and `require` check it, host name
    /// included, where the server has one; `disable` is for a server on the same machine.
    ///
    /// # Errors
    /// [`DatabaseError::NoUrl`], [`DatabaseError::Tls`].
    pub fn new(url: &str, declared: Option<Shops>) -> Result<Self, DatabaseError> {
        let mut config = Config::from_str(url).map_err(DatabaseError::NoUrl)?;
        config.application_name("kassa warehouse").connect_timeout(Duration::from_secs(5));
        config.keepalives_idle(Duration::from_secs(30)).tcp_user_timeout(Duration::from_secs(30));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?
            .with_no_client_auth();
        Ok(Self { config, tls: MakeRustlsConnect::new(tls), declared })
    }

    /// Looks whether it can be loaded, and brings its schema up to date, so that what is wrong is known before the first sale.
    ///
    /// # Errors
    /// [`DatabaseError::Schema`], [`DatabaseError::AtStart`].
    pub async fn prepare(&self) -> Result<(), DatabaseError> {
        match self.connect().await {
            Ok(_) => Ok(()),
            Err(error @ DatabaseError::Schema(SchemaError::Newer(_))) => Err(error),
            Err(source) => Err(DatabaseError::AtStart { place: self.place(), source: source.into() }),
        }
    }

    /// Where it is, as one says it to people.
    fn place(&self) -> String {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let hosts: Vec<String> = self.config.get_hosts().iter().map(host).collect();
        let port = self.config.get_ports().first().unwrap_or(&5432);
        let name = self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres");
        format!("{name} at {}:{port}", hosts.join(", "))
    }

    /// A connection that is set up to load, to a schema that is up to date.
    pub(super) async fn connect(&self) -> Result<Client, DatabaseError> {
        let (mut client, connection) = self.config.connect(self.tls.clone()).await?;
        // Ends when the client is dropped; what goes wrong, the client's next statement tells.
        tokio::spawn(connection);
        client.batch_execute(dialect::SESSION).await?;
        migrate(&mut client).await?;
        if let Some(shops) = &self.declared {
            match dimensions::declare(&mut client, shops).await {
                // Sales are worth more than names.
                Err(error) if error.code().is_some_and(is_a_rule) => {
                    tracing::error!(
                        error = chain(&error),
                        "what is declared of shops and items is not taken"
                    );
                }
                declared => declared?,
            }
        }
        Ok(client)
    }
}
