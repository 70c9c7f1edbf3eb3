-- The events of all topics in ClickHouse: read from Kafka by the writer's schema, each event_id once.
-- docs/engines.md says how to run this and when. Fill the three ${…} in, for instance with envsubst.

-- What comes from Kafka. AvroConfluent finds a record's schema by the id in its bytes, so one table reads all topics; what
-- a schema does not have is NULL. A path goes through a union by the name of its branch: message is null or a Message.
-- Only single values are taken so. A whole record would have to be spelled out, and a field added later would stop reading
-- it ("number of leaves"); what needs more than a value comes from `raw`, Meta's own JSON.
CREATE TABLE instagram_records (
  event_id String,
  webhook_field LowCardinality(String),
  origin LowCardinality(String),
  account_id Nullable(String),
  customer_id Nullable(String),
  occurred_at Nullable(DateTime64(3, 'UTC')),
  received_at DateTime64(3, 'UTC'),
  `message.Message.is_echo` Nullable(Bool),
  `message.Message.is_deleted` Nullable(Bool),
  `message.Message.referral.Referral.ad_id` Nullable(String),
  `message.Message.referral.Referral.ref` Nullable(String),
  `message_edit.MessageEdit.num_edit` Nullable(Int64),
  `reaction.Reaction.action` Nullable(String),
  `reaction.Reaction.reaction` Nullable(String),
  `reaction.Reaction.emoji` Nullable(String),
  `postback.Postback.payload` Nullable(String),
  `postback.Postback.referral.Referral.ad_id` Nullable(String),
  `postback.Postback.referral.Referral.ref` Nullable(String),
  `referral.Referral.ad_id` Nullable(String),
  `referral.Referral.ref` Nullable(String),
  raw String
) ENGINE = Kafka SETTINGS
  kafka_broker_list = '${KAFKA_BOOTSTRAP_SERVERS}',
  kafka_topic_list = '${TOPIC_PREFIX}.messages,${TOPIC_PREFIX}.message_edit,${TOPIC_PREFIX}.message_reactions,${TOPIC_PREFIX}.messaging_postbacks,${TOPIC_PREFIX}.messaging_seen,${TOPIC_PREFIX}.messaging_optins,${TOPIC_PREFIX}.messaging_handover,${TOPIC_PREFIX}.messaging_referral,${TOPIC_PREFIX}.standby,${TOPIC_PREFIX}.comments,${TOPIC_PREFIX}.live_comments,${TOPIC_PREFIX}.mentions,${TOPIC_PREFIX}.story_insights,${TOPIC_PREFIX}.other',
  kafka_group_name = '${TOPIC_PREFIX}-clickhouse',
  kafka_format = 'AvroConfluent',
  format_avro_schema_registry_url = '${SCHEMA_REGISTRY_URL}',
  input_format_avro_allow_missing_fields = 1,
  kafka_num_consumers = 1, -- up to the server's cores, and to the partitions that there are
  kafka_handle_error_mode = 'stream'; -- a record that cannot be read goes to undecodable_records, and does not stop the others

-- One row for each distinct event_id. A copy that Kafka or Meta brings again is dropped when parts are merged, and until then
-- by FINAL, which the view `events` asks for: the first copy in its partition stays, as in DuckDB. All copies have the same
-- key, so they share a partition of Kafka, and everything in ORDER BY.
CREATE TABLE stored_events (
  event_id UUID,
  webhook_field LowCardinality(String),
  origin LowCardinality(String),
  account_id Nullable(String),
  customer_id Nullable(String),
  event_time DateTime64(3, 'UTC'),
  occurred_at Nullable(DateTime64(3, 'UTC')),
  received_at DateTime64(3, 'UTC'),
  is_echo Bool,
  is_deleted Bool,
  num_edit Nullable(Int64),
  action LowCardinality(Nullable(String)),
  reaction LowCardinality(Nullable(String)),
  attachments Array(LowCardinality(Nullable(String))),
  is_story_reply Bool,
  payload Nullable(String),
  ad_id Nullable(String),
  ref Nullable(String),
  earliest_wins UInt64, -- a merge keeps the largest
  INDEX event_times event_time TYPE minmax
) ENGINE = ReplacingMergeTree(earliest_wins)
PARTITION BY toYYYYMM(received_at) -- our own clock: a strange time of Meta's makes no partition of its own
ORDER BY (webhook_field, ifNull(account_id, ''), event_id);

CREATE MATERIALIZED VIEW store_events TO stored_events AS
SELECT
  toUUID(event_id) AS event_id,
  webhook_field,
  origin,
  account_id,
  customer_id,
  coalesce(occurred_at, received_at) AS event_time,
  occurred_at,
  received_at,
  ifNull(`message.Message.is_echo`, false) AS is_echo,
  ifNull(`message.Message.is_deleted`, false) AS is_deleted,
  `message_edit.MessageEdit.num_edit` AS num_edit,
  `reaction.Reaction.action` AS action,
  coalesce(`reaction.Reaction.reaction`, `reaction.Reaction.emoji`) AS reaction,
  arrayMap(
    attachment -> if(JSONType(attachment, 'type') = 'String', JSONExtractString(attachment, 'type'), NULL),
    JSONExtractArrayRaw(raw, 'message', 'attachments')
  ) AS attachments,
  JSONType(raw, 'message', 'reply_to', 'story') = 'Object' AS is_story_reply,
  `postback.Postback.payload` AS payload,
  coalesce(
    `message.Message.referral.Referral.ad_id`, `referral.Referral.ad_id`, `postback.Postback.referral.Referral.ad_id`
  ) AS ad_id,
  coalesce(
    `message.Message.referral.Referral.ref`, `referral.Referral.ref`, `postback.Postback.referral.Referral.ref`
  ) AS ref,
  18446744073709551615 - _offset AS earliest_wins
FROM instagram_records
WHERE _error = '';

CREATE TABLE undecodable_records (
  topic LowCardinality(String),
  kafka_partition UInt64,
  kafka_offset UInt64,
  received_at Nullable(DateTime64(3, 'UTC')),
  error String,
  value String
) ENGINE = MergeTree
ORDER BY (topic, kafka_partition, kafka_offset);

CREATE MATERIALIZED VIEW store_undecodable_records TO undecodable_records AS
SELECT
  _topic AS topic,
  _partition AS kafka_partition,
  _offset AS kafka_offset,
  _timestamp_ms AS received_at,
  _error AS error,
  _raw_message AS value
FROM instagram_records
WHERE _error <> '';
