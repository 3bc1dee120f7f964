//! The thread that owns the model, and the queue in front of it.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Instant,
};

use axum::http::StatusCode;
use laps::{Array, Model};
use laps_search::{EmbeddingPipeline, IndexKind, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{failure::Failure, metrics::Metrics};

/// Input of a request to encode.
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

/// Model and index that answers are computed with.
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
    /// Places of the inputs in the queue, and memory of their texts. A job holds both after its client has gone.
    _permits: [OwnedSemaphorePermit; 2],
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

    /// Encodes `inputs` and computes an answer from their embeddings, which are in the same order. `permits` are for their places
    /// in the queue and for the memory of their texts.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        permits: [OwnedSemaphorePermit; 2],
        inputs: Vec<Encodable>,
        compute: impl FnOnce(&Context<'_>, Vec<Embedding>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let client = Arc::new(());
        let finish: Finish = Box::new(move |context, embeddings| {
            // The client may have gone.
            let _ = reply.send(embeddings.and_then(|embeddings| compute(context, embeddings)));
        });
        let job = Job { inputs, finish, client: Arc::downgrade(&client), _permits: permits };
        self.sender.send(job).map_err(|_| stopped())?;
        // The sender is dropped without an answer if the worker panicked.
        answer.await.unwrap_or_else(|_| Err(Failure::internal()))
    }
}

fn stopped() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
}

/// Runs jobs until the queue is closed. Those that wait are encoded together, up to the batch size of the model.
pub(crate) fn work(model: &Model, index: &dyn Store, Jobs(mut jobs): Jobs, metrics: &Metrics) {
    let encoding = model.encoding(&|_| ());
    let context = Context { model, index, encoding: &encoding };
    let mut waiting = VecDeque::new();
    loop {
        let next = if waiting.is_empty() { jobs.blocking_recv() } else { jobs.try_recv().ok() };
        match next {
            Some(job) if job.client.strong_count() == 0 => {}
            Some(job) => waiting.extend(TokenizedJob::new(&context, job)),
            None if waiting.is_empty() => break,
            None => {
                waiting.retain(|waiting| waiting.job.client.strong_count() > 0);
                let batch = take_batch(&mut waiting, encoding.batch_size.get(), TokenizedJob::size);
                if batch.is_empty() {
                    continue;
                }
                let inputs = batch.iter().map(|waiting| waiting.job.inputs.len()).sum();
                let began = Instant::now();
                // Clients of a batch that panics get an error, and the next batch is served.
                let outcome = catch_unwind(AssertUnwindSafe(|| run_batch(&context, batch)));
                if outcome.is_err() {
                    eprintln!("error: a batch of {inputs} inputs panicked");
                }
                metrics.batch(inputs, began.elapsed());
            }
        }
    }
}

/// Removes a batch of about `inputs` inputs: the job that has waited longest, and those with texts of the most similar
/// length, so that little is padded. `size` gives the inputs of a job and the tokens of its longest text.
fn take_batch<T>(waiting: &mut VecDeque<T>, inputs: usize, size: impl Fn(&T) -> (usize, usize)) -> Vec<T> {
    let sizes: Vec<(usize, usize)> = waiting.iter().map(size).collect();
    let Some(&(_, first)) = sizes.first() else { return Vec::new() };
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&job| sizes[job].1.abs_diff(first));
    let mut count = 0;
    let is_taken = |&job: &usize| {
        let is_taken = count < inputs;
        count += sizes[job].0;
        is_taken
    };
    let mut taken: Vec<usize> = order.into_iter().take_while(is_taken).collect();
    taken.sort_unstable();
    let mut batch: Vec<T> = taken.into_iter().rev().filter_map(|job| waiting.remove(job)).collect();
    batch.reverse();
    batch
}

/// A job whose texts are tokenized.
struct TokenizedJob {
    job: Job,
    input_ids: Vec<Vec<u32>>,
}

impl TokenizedJob {
    /// None if the job has failed: a text that is too long fails its own request alone.
    fn new(context: &Context<'_>, job: Job) -> Option<Self> {
        // A panic drops the sender of the answer, and the client gets an error.
        let tokenized = catch_unwind(AssertUnwindSafe(|| tokenize(context, &job.inputs)));
        match tokenized {
            Ok(Ok(input_ids)) => Some(Self { job, input_ids }),
            Ok(Err(failure)) => {
                (job.finish)(context, Err(failure));
                None
            }
            Err(_) => None,
        }
    }

    /// Inputs, and tokens of the longest text.
    fn size(&self) -> (usize, usize) {
        (self.job.inputs.len(), self.input_ids.iter().map(Vec::len).max().unwrap_or(0))
    }
}

fn run_batch(context: &Context<'_>, mut jobs: Vec<TokenizedJob>) {
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

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc, time::Duration};

    use tokio::{runtime::Builder, sync::Semaphore, time::timeout};

    use super::{queue, take_batch};

    #[test]
    fn waiting_job_holds_its_permits_after_its_client_has_gone() {
        let bodies = Arc::new(Semaphore::new(5));
        let (queue, jobs) = queue(1);
        let permits = [queue.reserve(1).unwrap(), Arc::clone(&bodies).try_acquire_many_owned(3).unwrap()];
        let request = async { timeout(Duration::ZERO, queue.run(permits, Vec::new(), |_, _| Ok(()))).await };
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        assert!(runtime.block_on(request).is_err(), "nothing takes the job");
        assert_eq!(bodies.available_permits(), 2);
        assert!(queue.reserve(1).is_err());
        drop(jobs);
        assert_eq!(bodies.available_permits(), 5);
    }

    /// Inputs and tokens of the jobs of each batch.
    fn batches(jobs: &[(usize, usize)], inputs: usize) -> Vec<Vec<(usize, usize)>> {
        let mut waiting = VecDeque::from(jobs.to_vec());
        let next = || Some(take_batch(&mut waiting, inputs, |&job| job)).filter(|batch| !batch.is_empty());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn batch_has_the_oldest_job_and_those_of_similar_length() {
        let jobs = [(1, 5), (1, 40), (1, 6), (1, 41), (1, 4), (1, 5)];
        assert_eq!(batches(&jobs, 3), [vec![(1, 5), (1, 6), (1, 5)], vec![(1, 40), (1, 41), (1, 4)]]);
        assert_eq!(batches(&jobs, 16), [jobs]);
    }

    #[test]
    fn job_with_more_inputs_than_a_batch_is_taken_whole() {
        let jobs = [(20, 5), (1, 5), (16, 9), (3, 9)];
        assert_eq!(batches(&jobs, 16), [vec![(20, 5)], vec![(1, 5), (16, 9)], vec![(3, 9)]]);
        assert!(batches(&[], 16).is_empty());
    }
}
