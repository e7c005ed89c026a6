"""The benchmarks under their names, in the order of the report."""

from benchmarks.measure import Benchmark
from benchmarks.works import (
    complete_ranking,
    embedding,
    evaluation,
    export,
    first_call,
    growth,
    ingest,
    metaclip,
    one_class,
    out_of_core,
    scores,
    semdedup,
    subset,
    training,
    year,
)

BENCHMARKS: dict[str, Benchmark] = {
    "ingest": ingest.BENCHMARK,
    "embedding": embedding.BENCHMARK,
    "export": export.BENCHMARK,
    "evaluation": evaluation.BENCHMARK,
    "training": training.BENCHMARK,
    "complete_ranking": complete_ranking.BENCHMARK,
    "out_of_core": out_of_core.BENCHMARK,
    "growth": growth.BENCHMARK,
    "one_class": one_class.BENCHMARK,
    "subset": subset.BENCHMARK,
    "semdedup": semdedup.BENCHMARK,
    "metaclip": metaclip.BENCHMARK,
    "first_call": first_call.BENCHMARK,
    "scores": scores.BENCHMARK,
    "year": year.BENCHMARK,
}
