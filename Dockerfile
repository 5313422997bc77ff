# nnc in a container: `docker build -t nnc .`, then `docker run --rm -v "$PWD:/work" nnc train net.nn`.
FROM python:3.13-slim
COPY . /tmp/nnc
RUN pip install --no-cache-dir /tmp/nnc && rm -rf /tmp/nnc && useradd --create-home nnc && mkdir /work && chown nnc /work
USER nnc
WORKDIR /work
ENTRYPOINT ["nnc"]
CMD ["--help"]
