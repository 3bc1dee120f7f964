//! The thread that owns the model, and the queue in front of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Instant,
};

use axum::http::StatusCode;
use laps::{Array, Model};
use laps_search::{EmbeddingPipeline, IndexKind, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{failure::Failure, metrics::Metrics};

/// What a request wants to have encoded.
#[derive(Debug)]
pub(crate) enum Encodable {
    Text(String),
    /// Preprocessed pixels `(3, size, size)`.
    Pixels(Vec<f32>),
    /// The stored embeddings of an item of the index.
    Item(usize),
}

/// The embeddings `(rows, dim)` of an image or a caption.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub(crate) kind: IndexKind,
    pub(crate) values: Array,
}

/// What answers are computed with.
pub(crate) struct Context<'a> {
    pub(crate) model: &'a Model,
    pub(crate) index: &'a dyn Store,
    pub(crate) encoding: &'a EmbeddingPipeline<'a>,
}

type Finish = Box<dyn FnOnce(&Context<'_>, Result<Vec<Embedding>, Failure>) + Send>;

struct Job {
    inputs: Vec<Encodable>,
    finish: Finish,
    /// Dead if the client has gone or the time of the request is over.
    client: Weak<()>,
    _place: OwnedSemaphorePermit,
}

/// The end of the queue that requests use.
pub(crate) struct Queue {
    sender: mpsc::UnboundedSender<Job>,
    places: Arc<Semaphore>,
}

/// The end of the queue that [`work`] uses.
pub(crate) struct Jobs(mpsc::UnboundedReceiver<Job>);

/// A queue for `capacity` inputs.
pub(crate) fn queue(capacity: usize) -> (Queue, Jobs) {
    // Every job holds places, so the channel is as bounded as these are.
    let (sender, receiver) = mpsc::unbounded_channel();
    (Queue { sender, places: Arc::new(Semaphore::new(capacity)) }, Jobs(receiver))
}

impl Queue {
    /// Places for `count` inputs.
    pub(crate) fn reserve(&self, count: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.places).try_acquire_many_owned(count);
        place.map_err(|_| Failure::overloaded("the queue is full"))
    }

    /// Encodes `inputs` and computes an answer from their embeddings, which are in the same order.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        inputs: Vec<Encodable>,
        compute: impl FnOnce(&Context<'_>, Vec<Embedding>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let client = Arc::new(());
        let finish: Finish = Box::new(move |context, embeddings| {
            // The client may have gone.
            let _ = reply.send(embeddings.and_then(|embeddings| compute(context, embeddings)));
        });
        let job = Job { inputs, finish, client: Arc::downgrade(&client), _place: place };
        self.sender.send(job).map_err(|_| stopped())?;
        // The sender is dropped without an answer if the worker panicked.
        answer.await.unwrap_or_else(|_| Err(Failure::internal()))
    }
}

fn stopped() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
}

/// Runs jobs until the queue is closed. All that wait are encoded together, up to the batch size of the model.
pub(crate) fn work(model: &Model, index: &dyn Store, Jobs(mut jobs): Jobs, metrics: &Metrics) {
    let encoding = model.encoding(&|_| ());
    let context = Context { model, index, encoding: &encoding };
    while let Some(first) = jobs.blocking_recv() {
        let mut inputs = first.inputs.len();
        let mut batch = vec![first];
        while inputs < encoding.batch_size.get()
            && let Ok(job) = jobs.try_recv()
        {
            inputs += job.inputs.len();
            batch.push(job);
        }
        batch.retain(|job| job.client.strong_count() > 0);
        if batch.is_empty() {
            continue;
        }
        let began = Instant::now();
        // Clients of a batch that panics get an error, and the next batch is served.
        let outcome = catch_unwind(AssertUnwindSafe(|| run_batch(&context, batch)));
        if outcome.is_err() {
            eprintln!("error: a batch of {inputs} inputs panicked");
        }
        metrics.batch(inputs, began.elapsed());
    }
}

/// A job whose texts are tokenized.
struct TokenizedJob {
    job: Job,
    input_ids: Vec<Vec<u32>>,
}

fn run_batch(context: &Context<'_>, batch: Vec<Job>) {
    let mut jobs = Vec::with_capacity(batch.len());
    for job in batch {
        match tokenize(context, &job.inputs) {
            Ok(input_ids) => jobs.push(TokenizedJob { job, input_ids }),
            // A text that is too long fails its own request alone.
            Err(failure) => (job.finish)(context, Err(failure)),
        }
    }
    let encoded = encode(context, &mut jobs);
    match encoded {
        Ok([captions, images]) => {
            let (mut captions, mut images) = (captions.into_iter(), images.into_iter());
            for TokenizedJob { job, .. } in jobs {
                let Job { inputs, finish, .. } = job;
                let embeddings = inputs.into_iter().map(|input| {
                    let kind = match input {
                        Encodable::Text(_) => IndexKind::Captions,
                        Encodable::Pixels(_) => IndexKind::Images,
                        Encodable::Item(item) => {
                            let values = context.index.embeddings(&[item])?.pop();
                            let values = values.ok_or_else(Failure::internal)?;
                            return Ok(Embedding { kind: context.index.description().kind, values });
                        }
                    };
                    let values = match kind {
                        IndexKind::Captions => captions.next(),
                        IndexKind::Images => images.next(),
                    };
                    Ok(Embedding { kind, values: values.ok_or_else(Failure::internal)? })
                });
                // All are taken, so that a failure does not shift those of the next job.
                let embeddings: Vec<Result<Embedding, Failure>> = embeddings.collect();
                finish(context, embeddings.into_iter().collect());
            }
        }
        Err(failure) => {
            for TokenizedJob { job, .. } in jobs {
                (job.finish)(context, Err(failure.clone()));
            }
        }
    }
}

fn tokenize(context: &Context<'_>, inputs: &[Encodable]) -> Result<Vec<Vec<u32>>, Failure> {
    let texts: Vec<String> = inputs
        .iter()
        .filter_map(|input| match input {
            Encodable::Text(text) => Some(text.clone()),
            _ => None,
        })
        .collect();
    Ok(context.encoding.tokenize(&texts)?)
}

/// The embeddings of all texts and of all images of `jobs`, each in order.
fn encode(context: &Context<'_>, jobs: &mut [TokenizedJob]) -> Result<[Vec<Array>; 2], Failure> {
    let (mut input_ids, mut pixels) = (Vec::new(), Vec::new());
    for TokenizedJob { job, input_ids: of_job } in jobs {
        input_ids.append(of_job);
        for input in &mut job.inputs {
            if let Encodable::Pixels(values) = input {
                pixels.push(std::mem::take(values));
            }
        }
    }
    let captions = context.encoding.encode_input_ids(&input_ids)?;
    let images = if pixels.is_empty() { Vec::new() } else { context.encoding.encode_pixels(&pixels)? };
    Ok([captions, images])
}
