# laps-zoo with ONNX Runtime on a GPU. Build it in the root of the repository, after `make wheels`:
#
#     docker build --file containers/cuda.Dockerfile --tag laps-zoo:cuda .
#     docker run --gpus all --read-only --tmpfs /tmp --volume laps-zoo:/cache laps-zoo:cuda doctor
FROM nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04 AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3=3.12.* python3-venv=3.12.* ca-certificates=2024* \
    && rm -rf /var/lib/apt/lists/*
COPY dist/laps_zoo-*.whl /wheels/
COPY containers/install.sh /
RUN /install.sh /wheels/laps_zoo-*.whl /opt/laps-zoo onnxruntime-gpu==1.31.1

FROM nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates=2024* \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=65532 --group=65532 /cache
COPY --from=build /opt/laps-zoo /opt/laps-zoo
ENV PATH=/opt/laps-zoo/bin:/usr/bin:/bin LAPS_ZOO_CACHE=/cache
VOLUME /cache
USER 65532:65532
HEALTHCHECK --interval=30s --timeout=10s CMD ["laps-zoo", "list"]
ENTRYPOINT ["laps-zoo"]
CMD ["--help"]
