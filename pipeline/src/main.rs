//! The pipeline's Lambda bootstrap: the stage that the handler names, with that stage's clients only.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use kassa_bus::attention::Attention;
use kassa_bus::keys::ShopKeys;
use kassa_bus::kms::KmsKeys;
use kassa_bus::lambda::{self, Error, Function};
use kassa_bus::registry::Registry;
use kassa_bus::shops_table::ShopsTable;
use kassa_bus::sns::Sns;
use kassa_bus::{Publisher, SettingError, Topic};
use kassa_pipeline::accept::Accept;
use kassa_pipeline::attention::AttentionList;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::event_store::{Appends, EventStore};
use kassa_pipeline::first_use::FirstUse;
use kassa_pipeline::gateway;
use kassa_pipeline::opener::Opener;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use kassa_pipeline::rates::Rates;
use kassa_pipeline::read_model::ReadModel;
use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::reject::Reject;
use kassa_pipeline::unsettled::Finder;
use kassa_pipeline::watch::Watch;

// One thread: Lambda gives a function this small a fraction of a core.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let parts = Parts { function: Function::start()? };
    match parts.function.handler()? {
        Accept::NAME => gateway::serve(&parts.function, parts.accept()?).await,
        Decrypt::NAME => lambda::drive(&parts.function, parts.decrypt()?.subscription(), None).await,
        Process::NAME => lambda::drive(&parts.function, parts.process()?.subscription(), None).await,
        Project::NAME => {
            let only_shard = parts.function.settings.optional("STREAM_SHARD");
            lambda::drive(&parts.function, parts.project()?.subscription(), only_shard).await
        }
        Watch::NAME => lambda::drive(&parts.function, parts.watch()?.subscription(), None).await,
        Reconcile::NAME => lambda::drive(&parts.function, parts.reconcile()?.subscription(), None).await,
        _ => {
            let what = "accept, decrypt, process, project, watch or reconcile";
            Err(SettingError::Wrong { name: "_HANDLER", what }.into())
        }
    }
}

/// What stages are made of.
struct Parts {
    function: Function,
}

impl Parts {
    fn accept(&self) -> Result<Accept, SettingError> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.function.aws);
        Ok(Accept {
            store: self.events(&dynamodb)?,
            registry: self.registry(dynamodb)?,
            keys: self.keys()?,
            publisher: self.publisher(&[(Topic::ToDecrypt, "TO_DECRYPT_TOPIC")])?,
            rates: Rates::told(&self.function.settings)?,
            clock: self.function.clock.clone(),
            metrics: self.function.metrics.clone(),
        })
    }

    fn decrypt(&self) -> Result<Decrypt, SettingError> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.function.aws);
        let publisher = self.publisher(&[
            (Topic::ToProcess, "TO_PROCESS_TOPIC"),
            (Topic::DecryptErrors, "DECRYPT_ERRORS_TOPIC"),
        ])?;
        let store = self.events(&dynamodb)?;
        Ok(Decrypt {
            store: store.clone(),
            first_use: FirstUse { store: store.clone(), clock: self.function.clock.clone() },
            reject: self.reject(store, &dynamodb, Arc::clone(&publisher))?,
            opener: Opener::new(self.registry(dynamodb)?, self.keys()?, self.function.metrics.clone()),
            publisher,
            metrics: self.function.metrics.clone(),
        })
    }

    fn process(&self) -> Result<Process, SettingError> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.function.aws);
        let store = self.events(&dynamodb)?;
        let publisher = self.publisher(&[(Topic::DecryptErrors, "DECRYPT_ERRORS_TOPIC")])?;
        Ok(Process {
            reject: self.reject(store.clone(), &dynamodb, publisher)?,
            store,
            registry: self.registry(dynamodb)?,
            clock: self.function.clock.clone(),
            metrics: self.function.metrics.clone(),
        })
    }

    fn project(&self) -> Result<Project, SettingError> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.function.aws);
        let Function { metrics, clock, .. } = &self.function;
        let attention = Attention::new(dynamodb.clone(), self.table("SHOPS_TABLE")?);
        let read_model = ReadModel::new(dynamodb, self.table("SHOPS_TABLE")?);
        Ok(Project::new(read_model, attention, metrics.clone(), clock.clone()))
    }

    fn watch(&self) -> Result<Watch, SettingError> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.function.aws);
        let Function { metrics, clock, .. } = &self.function;
        let finder = Finder { store: self.events(&dynamodb)? };
        let read_model = ReadModel::new(dynamodb.clone(), self.table("SHOPS_TABLE")?);
        Ok(Watch::new(self.registry(dynamodb)?, read_model, finder, clock.clone(), metrics.clone()))
    }

    fn reconcile(&self) -> Result<Reconcile, SettingError> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.function.aws);
        let Function { metrics, clock, settings, .. } = &self.function;
        let table = ShopsTable::new(dynamodb.clone(), self.table("SHOPS_TABLE")?);
        Reconcile::told(
            settings,
            Finder { store: self.events(&dynamodb)? },
            table,
            self.publisher(&[(Topic::ToDecrypt, "TO_DECRYPT_TOPIC")])?,
            (clock.clone(), metrics.clone()),
        )
    }

    fn table(&self, name: &'static str) -> Result<&str, SettingError> {
        self.function.settings.table(name)
    }

    fn events(&self, dynamodb: &aws_sdk_dynamodb::Client) -> Result<EventStore, SettingError> {
        Ok(EventStore::new(dynamodb.clone(), self.table("EVENTS_TABLE")?, Appends::Single))
    }

    fn registry(&self, dynamodb: aws_sdk_dynamodb::Client) -> Result<Registry, SettingError> {
        Ok(Registry::new(dynamodb, self.table("SHOPS_TABLE")?))
    }

    fn keys(&self) -> Result<Arc<dyn ShopKeys>, SettingError> {
        let client = aws_sdk_kms::Client::new(&self.function.aws);
        Ok(Arc::new(KmsKeys::new(client, self.function.settings.key_prefix("KEY_PREFIX")?)))
    }

    fn publisher(&self, topics: &[(Topic, &'static str)]) -> Result<Arc<dyn Publisher>, SettingError> {
        let arn = |name| self.function.settings.topic(name).map(str::to_owned);
        let topics: HashMap<Topic, String> =
            topics.iter().map(|(topic, name)| Ok((*topic, arn(name)?))).collect::<Result<_, _>>()?;
        Ok(Arc::new(Sns::new(aws_sdk_sns::Client::new(&self.function.aws), topics)))
    }

    fn reject(
        &self,
        store: EventStore,
        dynamodb: &aws_sdk_dynamodb::Client,
        publisher: Arc<dyn Publisher>,
    ) -> Result<Reject, SettingError> {
        let rows = Attention::new(dynamodb.clone(), self.table("SHOPS_TABLE")?);
        Ok(Reject {
            attention: AttentionList::new(store.clone(), rows),
            store,
            publisher,
            clock: self.function.clock.clone(),
            metrics: self.function.metrics.clone(),
        })
    }
}
