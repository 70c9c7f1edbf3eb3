# One image for the bridge and for the sample consumers: the entry point is `bridge`, a consumer names its own.
# The base is pinned by version; who needs the same bytes every time adds the digest: --build-arg PYTHON=…-slim-trixie@sha256:…
ARG PYTHON=3.13.16-slim-trixie

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# pip works on this environment from outside, so that it is not in the image's.
RUN python -m venv --without-pip /opt/bridge
WORKDIR /source
COPY locks/bridge.txt locks/
RUN python -m pip --python /opt/bridge/bin/python install --only-binary :all: --require-hashes -r locks/bridge.txt
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY consumers consumers
COPY bridge bridge
RUN python -m pip --python /opt/bridge/bin/python install --no-deps --no-build-isolation .

FROM python:${PYTHON}
COPY --from=build /opt/bridge /opt/bridge
# The spool and the analytics' database are all that its user may write to; a new volume over one takes owner and mode from here.
RUN install -d -m 0700 -o 10001 -g 10001 /var/spool/instagram-bridge /var/lib/instagram-analytics
ENV PATH=/opt/bridge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    BRIDGE_HOST=0.0.0.0 \
    BRIDGE_SPOOL_DIR=/var/spool/instagram-bridge
USER 10001:10001
VOLUME ["/var/spool/instagram-bridge"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Ready: a delivery that came now would be taken, by Kafka or by the spool. The management port stays in the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import http.client, os, sys; port = os.environ.get('BRIDGE_MANAGEMENT_PORT') or 8081; asked = http.client.HTTPConnection('127.0.0.1', int(port), timeout=4); asked.request('GET', '/readyz'); sys.exit(asked.getresponse().status != 200)"]
ENTRYPOINT ["bridge"]
CMD ["serve"]
