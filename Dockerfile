# Port, volume, paths and words of registry:2. Any base with Python 3.11 or newer and its venv will do.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
WORKDIR /source
COPY requirements requirements
RUN python3 -m venv /build && python3 -m venv /opt/layerhouse \
 && /build/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/build.lock \
 && /opt/layerhouse/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/runtime.lock
COPY . .
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/layerhouse/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
 && /opt/layerhouse/bin/python -m compileall -q /opt/layerhouse/lib \
 && /opt/layerhouse/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
COPY --from=build /opt/layerhouse /opt/layerhouse
COPY container/entrypoint /entrypoint
COPY container/config.yml /etc/docker/registry/config.yml
# Version 3 of the image looks here; `docker exec … /bin/registry garbage-collect …` is how collections are written down.
RUN install --directory /etc/distribution /etc/docker/registry \
 && ln -s /etc/docker/registry/config.yml /etc/distribution/config.yml \
 && ln -s /opt/layerhouse/bin/registry /bin/registry \
 && useradd --uid 1000 --create-home layerhouse \
 && install --directory --owner layerhouse /var/lib/registry
# A volume that registry:2 wrote belongs to root: start with `--user root`, or give the volume to uid 1000 first.
USER layerhouse
EXPOSE 5000
VOLUME /var/lib/registry
STOPSIGNAL SIGTERM
# Where a file, or a folder with one, may be mounted: version 3's place first, which leads to version 2's where it is not.
ENV LAYERHOUSE_CONFIGURATION_PATHS=/etc/distribution/config.yml:/etc/docker/registry/config.yml
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["registry", "healthcheck"]
ENTRYPOINT ["/entrypoint"]
CMD ["serve"]
