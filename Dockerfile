# One image: members, replicas and the operator. No network is needed: everything comes from ./wheels, made by
# scripts/build-image for the Python of the base image.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
COPY wheels /wheels
RUN python3 -m venv --without-pip /opt/holdfast && \
    python3 -m venv /tmp/pip && \
    /tmp/pip/bin/pip --python /opt/holdfast/bin/python3 install --quiet --no-index --no-deps --no-compile /wheels/*.whl && \
    rm -rf /tmp/pip /wheels && \
    /opt/holdfast/bin/python3 -m compileall -q /opt/holdfast/lib
ENV PATH=/opt/holdfast/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN echo 'holdfast:x:65532:65532::/tmp:/usr/sbin/nologin' >>/etc/passwd && echo 'holdfast:x:65532:' >>/etc/group
USER 65532:65532
ENTRYPOINT ["holdfast"]
