FROM python:3.12-slim AS build
WORKDIR /source
COPY requirements.lock .
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.12-slim
COPY requirements/runtime.lock /tmp/
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/runtime.lock \
 && pip install --no-cache-dir --no-deps /tmp/wheels/*.whl \
 && useradd --uid 1000 --create-home layerhouse \
 && install --directory --owner layerhouse /var/lib/registry
# A volume that registry:2 wrote belongs to root: start with `--user root`, or give the volume to uid 1000 first.
USER layerhouse
EXPOSE 5000
VOLUME /var/lib/registry
STOPSIGNAL SIGTERM
# Any answer below 500 is a sign of life: 401 is what a registry with access rules says.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "-c", "\
import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 5000, timeout=4); \
c.request('GET', '/v2/'); sys.exit(c.getresponse().status >= 500)"]
ENTRYPOINT ["registry"]
CMD ["serve", "--root", "/var/lib/registry", "--addr", "0.0.0.0:5000"]
