-- Run once, when PostgreSQL makes its data: the second database, beside Maskwheel's own.
CREATE DATABASE prefect;
