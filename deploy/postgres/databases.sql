-- One for Dagster's history, one for MLflow's runs; both are owned by the user who runs this.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
