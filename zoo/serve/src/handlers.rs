//! The endpoints.

use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderName, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use laps::{Array, ExplanationDocument};
use laps_align::similarity::CaptionMatrix;
use laps_search::{Filter, IndexKind, SearchScope, Searcher};
use tokio::time::timeout;
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use crate::{
    api::*,
    app::App,
    body::{BodyRoom, encodable, read, too_many},
    failure::{ErrorBody, Failure},
    guard::guard,
    worker::{Context, Embedding, Encodable},
};

type AppState = State<Arc<App>>;

/// The answers besides success of the endpoints with a body.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "read by the derive macro alone")]
enum Failures {
    /// The body is not JSON or not a form
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// The token is missing or wrong
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The request comes from a page of another site
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such model
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The body did not arrive in time
    #[response(status = 408)]
    RequestTimeout(ErrorBody),
    /// The body or the number of inputs is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The content type cannot be used
    #[response(status = 415)]
    MediaType(ErrorBody),
    /// A field cannot be used
    #[response(status = 422)]
    Invalid(ErrorBody),
    /// The server is busy; `Retry-After` says when to try again
    #[response(status = 429)]
    Overloaded(ErrorBody),
    /// The request failed
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The request was not answered in time, or the server is stopping
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

#[derive(OpenApi)]
#[openapi(
    info(title = "laps-zoo", description = "Image-text retrieval with a LAPS model and an index."),
    paths(search, embeddings, score, rerank, explain, item_image, healthz, readyz, metrics),
    modifiers(&BearerToken)
)]
struct Api;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut document = Api::openapi();
    if app.token.is_some() {
        document.security = Some(vec![SecurityRequirement::new::<_, [String; 0], String>("token", [])]);
    }
    let document = document.to_json().unwrap_or_default();
    let text = |kind: &'static str, text: &'static str| move || async move { ([(header::CONTENT_TYPE, kind)], text) };
    let not_found = || async { Failure::new(StatusCode::NOT_FOUND, "there is no such path") };
    let wrong_method = || async { Failure::new(StatusCode::METHOD_NOT_ALLOWED, "the path has no such method") };
    Router::new()
        .route("/v1/search", post(search))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/score", post(score))
        .route("/v1/rerank", post(rerank))
        .route("/v1/explain", post(explain))
        .route("/v1/items/{item}/image", get(item_image))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], document) }))
        .route("/", get(text("text/html; charset=utf-8", include_str!("../page/page.html"))))
        .route("/page.css", get(text("text/css; charset=utf-8", include_str!("../page/page.css"))))
        .route("/page.js", get(text("text/javascript; charset=utf-8", include_str!("../page/page.js"))))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// Search the index
#[utoipa::path(
    post,
    path = "/v1/search",
    request_body = SearchRequest,
    responses((status = 200, description = "Results, best first", body = SearchAnswer), Failures)
)]
async fn search(State(app): AppState, request: Request) -> Result<Json<SearchAnswer>, Failure> {
    let (SearchRequest { query, top, candidates, filter }, room) = read(&app, request).await?;
    check_range("top", top, MAX_TOP)?;
    check_range("candidates", candidates, MAX_CANDIDATES)?;
    if filter.len() > MAX_CONDITIONS {
        return Err(Failure::field("filter", format!("at most {MAX_CONDITIONS} conditions"), filter.len()));
    }
    let filter = Filter::parse(&filter).map_err(laps_search::Error::from)?;
    let index_kind = app.index.description().kind;
    let compute = move |context: &Context<'_>, query: Vec<Embedding>| {
        let Context { model, index, .. } = *context;
        let searcher = Searcher { index, filter: Some(&filter), engine: model.similarity(), stop: model.stop() };
        let items = index.item_count(Some(&filter))?;
        let query = query.into_iter().next().ok_or_else(Failure::internal)?;
        let (ranked_by, compared, found) = if query.kind != index_kind {
            let scope = SearchScope::Candidates(candidates);
            let hits = searcher.search(&query.values, scope, top)?;
            let found: Vec<_> = hits.iter().map(|hit| (hit.item, Some(hit.similarity), hit.pooled)).collect();
            (RankedBy::Similarity, searcher.compared(scope, top)?, found)
        } else {
            let file = index.location().file_name().unwrap_or_default();
            index.description().check_kind(file.as_ref(), IndexKind::Images).map_err(laps::Error::from)?;
            let near = searcher.neighbors(&query.values, top)?;
            (RankedBy::Pooled, 0, near.iter().map(|near| (near.item, None, near.pooled)).collect())
        };
        let names = index.names(&found.iter().map(|&(item, ..)| item).collect::<Vec<_>>())?;
        let rows = (1..).zip(found.into_iter().zip(names));
        let results = rows.map(|(rank, ((item, similarity, pooled), name))| SearchResult {
            rank,
            item,
            name,
            similarity,
            pooled,
        });
        let results = results.collect();
        Ok(SearchAnswer {
            kind: index_kind,
            items,
            ranked_by,
            compared,
            model: model.used().clone(),
            engine: model.engine().clone(),
            results,
        })
    };
    run(&app, room, vec![("query", query)], compute).await.map(Json)
}

/// Embed texts and images as pooled vectors
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    request_body = EmbeddingsRequest,
    responses((status = 200, description = "Vectors of norm 1, in the order of the inputs", body = EmbeddingsAnswer), Failures)
)]
async fn embeddings(State(app): AppState, request: Request) -> Result<Json<EmbeddingsAnswer>, Failure> {
    let (body, room) = read(&app, request).await?;
    let EmbeddingsRequest { input, model, encoding_format, dimensions, .. } = body;
    check_model(&app, model)?;
    if let Some(dimensions) = dimensions.filter(|&dimensions| dimensions != app.width) {
        return Err(Failure::field("dimensions", app.width, dimensions));
    }
    let inputs = match input {
        Inputs::One(input) => vec![input],
        Inputs::Many(inputs) => inputs,
    };
    let inputs = inputs.into_iter().map(|input| ("input", input)).collect();
    let compute = move |context: &Context<'_>, embeddings: Vec<Embedding>| {
        let tokens = embeddings.iter().filter(|embedding| embedding.kind == IndexKind::Captions);
        let tokens = tokens.map(|embedding| embedding.values.dims()[0]).sum();
        let data = (0..).zip(&embeddings).map(|(index, Embedding { kind, values })| {
            let vector = context.encoding.pool(*kind, values.values());
            let embedding = match encoding_format {
                EncodingFormat::Float => EmbeddingValues::Float(vector),
                EncodingFormat::Base64 => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                    EmbeddingValues::Base64(BASE64_STANDARD.encode(bytes))
                }
            };
            EmbeddingItem { object: "embedding", index, embedding }
        });
        Ok(EmbeddingsAnswer {
            object: "list",
            data: data.collect(),
            model: context.model.used().entry.clone(),
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        })
    };
    run(&app, room, inputs, compute).await.map(Json)
}

/// Exact similarities of images and texts
#[utoipa::path(
    post,
    path = "/v1/score",
    request_body = ScoreRequest,
    responses((status = 200, description = "Similarities of every image with every text", body = ScoreAnswer), Failures)
)]
async fn score(State(app): AppState, request: Request) -> Result<Json<ScoreAnswer>, Failure> {
    let (ScoreRequest { images, texts }, room) = read(&app, request).await?;
    let columns = texts.len();
    let images = images.into_iter().map(|input| ("images", input));
    let inputs = images.chain(texts.into_iter().map(|input| ("texts", input))).collect();
    let compute = move |context: &Context<'_>, mut images: Vec<Embedding>| {
        let texts = images.split_off(images.len() - columns);
        let similarities = similarities(context, ["images", "texts"], &images, &texts)?;
        Ok(ScoreAnswer {
            model: context.model.used().clone(),
            engine: context.model.engine().clone(),
            similarities: similarities.values().chunks_exact(columns.max(1)).map(<[f32]>::to_vec).collect(),
        })
    };
    run(&app, room, inputs, compute).await.map(Json)
}

/// Order images by a text, or texts by an image
#[utoipa::path(
    post,
    path = "/v1/rerank",
    request_body = RerankRequest,
    responses((status = 200, description = "Documents, best first", body = RerankAnswer), Failures)
)]
async fn rerank(State(app): AppState, request: Request) -> Result<Json<RerankAnswer>, Failure> {
    let (RerankRequest { query, documents, top_n, model }, room) = read(&app, request).await?;
    check_model(&app, model)?;
    let top = top_n.unwrap_or(documents.len());
    if top == 0 {
        return Err(Failure::field("top_n", "1 or more", 0));
    }
    let documents = documents.into_iter().map(|input| ("documents", input));
    let inputs = std::iter::once(("query", query)).chain(documents).collect();
    let compute = move |context: &Context<'_>, mut query: Vec<Embedding>| {
        let documents = query.split_off(1);
        let similarities = match query[0].kind {
            IndexKind::Captions => similarities(context, ["documents", "query"], &documents, &query)?,
            IndexKind::Images => similarities(context, ["query", "documents"], &query, &documents)?,
        };
        let mut results: Vec<RerankResult> = (0..)
            .zip(similarities.values())
            .map(|(index, &relevance_score)| RerankResult { index, relevance_score })
            .collect();
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        results.truncate(top);
        Ok(RerankAnswer { model: context.model.used().entry.clone(), results })
    };
    run(&app, room, inputs, compute).await.map(Json)
}

/// Which patches of an image match which words of a caption
#[utoipa::path(
    post,
    path = "/v1/explain",
    request_body = ExplainRequest,
    responses((status = 200, description = "The document of `laps-zoo explain --json`", body = Object), Failures)
)]
async fn explain(State(app): AppState, request: Request) -> Result<Response, Failure> {
    let (ExplainRequest { image, caption }, room) = read(&app, request).await?;
    let caption = caption.trim().to_owned();
    let item = match &image {
        Input::Tagged(TaggedInput::Item(item)) => Some(*item),
        _ => None,
    };
    let inputs = vec![("image", image), ("caption", Input::Tagged(TaggedInput::Text(caption.clone())))];
    let compute = move |context: &Context<'_>, embeddings: Vec<Embedding>| {
        let [image, words] = embeddings.as_slice() else { return Err(Failure::internal()) };
        check_kind("image", image, IndexKind::Images)?;
        let model = context.model;
        let pair = model.explain_embeddings(&image.values, &words.values, &caption)?;
        let name = match item {
            Some(item) => context.index.names(&[item])?.pop(),
            None => None,
        };
        let name = name.unwrap_or_else(|| "image".to_owned());
        let document = ExplanationDocument::new(model.used(), model.engine(), name, &caption, &pair);
        serde_json::to_vec(&document).map_err(|_| Failure::internal())
    };
    let document = run(&app, room, inputs, compute).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

/// An image of the index, as JPEG
#[utoipa::path(
    get,
    path = "/v1/items/{item}/image",
    params(("item" = u64, Path, description = "Number of the item in the index")),
    responses(
        (status = 200, description = "The image, with its longer side reduced", content_type = "image/jpeg"),
        (status = 401, description = "The token is missing or wrong", body = ErrorBody),
        (status = 403, description = "The request comes from a page of another site", body = ErrorBody),
        (status = 404, description = "No image has this number", body = ErrorBody),
        (status = 503, description = "The database does not answer", body = ErrorBody)
    )
)]
async fn item_image(State(app): AppState, item: Result<Path<String>, PathRejection>) -> Result<Response, Failure> {
    let missing = || Failure::new(StatusCode::NOT_FOUND, "there is no such item");
    let item = item.ok().and_then(|Path(item)| item.parse().ok()).ok_or_else(missing)?;
    let jpeg = app.item_image(item).await?;
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "private, max-age=3600")];
    Ok((headers, Body::from(jpeg)).into_response())
}

/// Whether the server runs
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It runs", body = Health)))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the server takes requests
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "It does", body = Health),
        (status = 503, description = "It is stopping, or the database does not answer", body = Health)
    )
)]
async fn readyz(State(app): AppState) -> (StatusCode, Json<Health>) {
    let unavailable = |status| (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status }));
    if app.is_stopping() {
        return unavailable("stopping");
    }
    match app.index_answers().await {
        true => (StatusCode::OK, Json(Health { status: "ok" })),
        false => unavailable("index unavailable"),
    }
}

/// Counters for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "The token is missing or wrong", body = ErrorBody),
        (status = 403, description = "The request comes from a page of another site", body = ErrorBody)
    )
)]
async fn metrics(State(app): AppState) -> Result<impl IntoResponse, Failure> {
    let text = app.metrics.text().map_err(|_| Failure::internal())?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

/// Checks `inputs`, each with the name of its field, and computes an answer from their embeddings. `room` is that of the body
/// that they come from.
async fn run<T: Send + 'static>(
    app: &App,
    room: BodyRoom,
    inputs: Vec<(&str, Input)>,
    compute: impl FnOnce(&Context<'_>, Vec<Embedding>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if inputs.is_empty() {
        return Err(Failure::field("input", "1 or more texts and images", "none"));
    }
    if inputs.len() > app.limits.inputs {
        return Err(too_many(app.limits.inputs));
    }
    let place = app.queue.reserve(inputs.len())?;
    let answer = async {
        let mut encodables: Vec<Encodable> = Vec::with_capacity(inputs.len());
        for (field, input) in inputs {
            encodables.push(encodable(app, field, input).await?);
        }
        // The pixels of images have a size of their own, which the queue limits.
        let texts = encodables.iter().filter_map(|input| match input {
            Encodable::Text(text) => Some(text.len()),
            _ => None,
        });
        let permits = [place, room.into_permit(texts.sum())];
        app.queue.run(permits, encodables, compute).await
    };
    in_time(app, answer).await
}

async fn in_time<T>(app: &App, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let limit = app.limits.request_time;
    timeout(limit, answer).await.unwrap_or_else(|_| {
        let message = format!("the request was not answered within {} s", limit.as_secs());
        Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message))
    })
}

/// Similarities `(images, texts)`. `names` are those of the two fields, in errors.
fn similarities(
    context: &Context<'_>,
    names: [&str; 2],
    images: &[Embedding],
    texts: &[Embedding],
) -> Result<Array, Failure> {
    images.iter().try_for_each(|image| check_kind(names[0], image, IndexKind::Images))?;
    texts.iter().try_for_each(|text| check_kind(names[1], text, IndexKind::Captions))?;
    for (name, inputs) in names.into_iter().zip([images, texts]) {
        if inputs.is_empty() {
            return Err(Failure::field(name, "1 or more", "none"));
        }
    }
    let sizes = context.encoding.sizes;
    let words: Vec<Array> = texts.iter().map(|text| text.values.clone()).collect();
    let words = CaptionMatrix::from_arrays(&words, sizes.width)?;
    let patches = images.iter().flat_map(|image| image.values.values()).copied().collect();
    let patches = Array::new(&[images.len(), sizes.tokens, sizes.width], patches).map_err(laps::Error::from)?;
    Ok(context.model.similarity().similarities(&patches, &words)?)
}

fn check_kind(field: &str, embedding: &Embedding, expected: IndexKind) -> Result<(), Failure> {
    let name = |kind| if kind == IndexKind::Images { "an image" } else { "a text" };
    match embedding.kind == expected {
        true => Ok(()),
        false => Err(Failure::field(field, name(expected), name(embedding.kind))),
    }
}

fn check_range(field: &str, value: usize, largest: usize) -> Result<(), Failure> {
    match (1..=largest).contains(&value) {
        true => Ok(()),
        false => Err(Failure::field(field, format!("1 to {largest}"), value)),
    }
}

fn check_model(app: &App, model: Option<String>) -> Result<(), Failure> {
    match model {
        Some(model) if model != app.model.entry => {
            let message = format!("there is no model `{model}`\n  expected: {}\n  found: {model}", app.model.entry);
            Err(Failure::new(StatusCode::NOT_FOUND, message))
        }
        _ => Ok(()),
    }
}
