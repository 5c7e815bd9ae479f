"""The tables of the cache. The migrations in semel/migrations must produce exactly these."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

spaces = Table(
    "spaces",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fingerprint", LargeBinary(32), nullable=False, unique=True),
    Column("model", String(200), nullable=False),
    Column("prompt_name", String(200), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("max_tokens", Integer, nullable=False),
    Column("precision", String(20), nullable=False),
    Column("spec_json", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("lookups", BigInteger, nullable=False, server_default="0"),
    Column("hits", BigInteger, nullable=False, server_default="0"),
    Column("saved_s", Float, nullable=False, server_default="0"),
    Column("used_at", Float),
)

producers = Table(
    "producers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device", String(100), nullable=False),
    Column("backend", String(100), nullable=False),
    Column("dtype", String(20), nullable=False),
    UniqueConstraint("device", "backend", "dtype", name="uq_producers"),
)

vectors = Table(
    "vectors",
    metadata,
    Column("key", LargeBinary(32), primary_key=True),
    Column("space_id", Integer, nullable=False),
    Column("producer_id", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("truncated", Boolean, nullable=False),
    Column("crc", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),  # last: reading the other columns skips its overflow pages
    Index("ix_vectors_space_created", "space_id", "created_at"),
)

models = Table(
    "models",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("prompt_name", String(200), primary_key=True),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("max_tokens", Integer, nullable=False),
    Column("precision", String(20), nullable=False),
    Column("spec_json", Text, nullable=False),
    Column("matryoshka_dims", Text, nullable=False),
    Column("device", String(100), nullable=False),
    Column("seen_at", Float, nullable=False),
)
