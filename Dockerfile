# The service as an image, for hosts other than Cloud Run functions: docs/docker.md.
# The tag floats within Python 3.13, so that a rebuild takes Debian's and Python's security fixes.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app
COPY requirements.txt ./
# Never looked up against its source again, because a file's time in an image means nothing: unchecked-hash.
RUN python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python3 install --quiet --no-compile --no-deps --require-hashes -r requirements.txt \
 && /opt/venv/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM packages AS sandbox-packages
COPY requirements-sandbox.txt ./
RUN python3 -m pip --python /opt/venv/bin/python3 install --quiet --no-deps --require-hashes -r requirements-sandbox.txt

FROM ${PYTHON_IMAGE} AS code
WORKDIR /app
COPY main.py ops/docker/healthcheck.py ./
COPY common common
COPY functions functions
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
RUN install --directory --owner=65532 --group=65532 /data

# The simulated maker, for compose.yaml.
FROM base AS sandbox
COPY --from=sandbox-packages /opt/venv /opt/venv
COPY common/__init__.py common/clock.py common/
COPY sandbox sandbox
USER 65532:65532
EXPOSE 8901
CMD ["python3", "-m", "sandbox.mybmw", "--host", "0.0.0.0", "--port", "8901"]

FROM base AS api
COPY --from=packages /opt/venv /opt/venv
COPY --from=code /app /app
ENV PORT=8080 THREADS=32 DOCUMENTS_URL=sqlite:////data/draiv.db
USER 65532:65532
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s --retries=3 CMD ["python3", "healthcheck.py"]
CMD ["functions-framework", "--target=bmw_api"]
