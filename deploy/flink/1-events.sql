-- The events of all topics in Flink SQL: read from Kafka by the writer's schema, each event_id once.
-- docs/engines.md says how to run this and when. Fill the three ${…} in, for instance with envsubst.

SET 'table.local-time-zone' = 'UTC';

-- What comes from Kafka. A record's schema is found by the id in its bytes and resolved to these columns by their names:
-- one table reads all topics, and what a schema does not have is NULL, as is what a later one adds here and nobody asked for.
-- Times are milliseconds since the Unix epoch.
CREATE TABLE instagram_records (
  event_id STRING NOT NULL,
  webhook_field STRING NOT NULL,
  origin STRING NOT NULL,
  account_id STRING,
  customer_id STRING,
  occurred_at BIGINT,
  received_at BIGINT NOT NULL,
  message ROW<
    is_echo BOOLEAN,
    is_deleted BOOLEAN,
    attachments ARRAY<ROW<type STRING> NOT NULL>,
    reply_to ROW<story ROW<id STRING>>,
    referral ROW<ad_id STRING, `ref` STRING>
  >,
  message_edit ROW<num_edit BIGINT>,
  reaction ROW<action STRING, reaction STRING, emoji STRING>,
  postback ROW<payload STRING, referral ROW<ad_id STRING, `ref` STRING>>,
  referral ROW<ad_id STRING, `ref` STRING>,
  kafka_offset BIGINT METADATA FROM 'offset' VIRTUAL
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '${KAFKA_BOOTSTRAP_SERVERS}',
  'properties.group.id' = '${TOPIC_PREFIX}-flink',
  'topic' = '${TOPIC_PREFIX}.messages;${TOPIC_PREFIX}.message_edit;${TOPIC_PREFIX}.message_reactions;${TOPIC_PREFIX}.messaging_postbacks;${TOPIC_PREFIX}.messaging_seen;${TOPIC_PREFIX}.messaging_optins;${TOPIC_PREFIX}.messaging_handover;${TOPIC_PREFIX}.messaging_referral;${TOPIC_PREFIX}.standby;${TOPIC_PREFIX}.comments;${TOPIC_PREFIX}.live_comments;${TOPIC_PREFIX}.mentions;${TOPIC_PREFIX}.story_insights;${TOPIC_PREFIX}.other',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset', -- what is there now; without this line it goes on for ever
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = '${SCHEMA_REGISTRY_URL}'
);

-- One row for each distinct event_id: the first copy in its partition stays, as in DuckDB. All copies have the same key, so they
-- share a partition of Kafka. A stream keeps every event_id in its state, unless 'table.exec.state.ttl' bounds it.
CREATE VIEW events AS
SELECT
  event_id,
  webhook_field,
  origin,
  account_id,
  customer_id,
  COALESCE(occurred_at, received_at) AS event_ms,
  CAST(TO_TIMESTAMP_LTZ(COALESCE(occurred_at, received_at), 3) AS TIMESTAMP(3)) AS event_time,
  CAST(TO_TIMESTAMP_LTZ(occurred_at, 3) AS TIMESTAMP(3)) AS occurred_at,
  CAST(TO_TIMESTAMP_LTZ(received_at, 3) AS TIMESTAMP(3)) AS received_at,
  (received_at - occurred_at) / 1000e0 AS meta_to_bridge_s,
  COALESCE(message.is_echo, FALSE) AS is_echo,
  COALESCE(message.is_deleted, FALSE) AS is_deleted,
  message_edit.num_edit AS num_edit,
  reaction.action AS action,
  COALESCE(reaction.reaction, reaction.emoji) AS reaction,
  message.attachments AS attachments,
  message.reply_to.story IS NOT NULL AS is_story_reply,
  postback.payload AS payload,
  COALESCE(message.referral.ad_id, referral.ad_id, postback.referral.ad_id) AS ad_id,
  COALESCE(message.referral.`ref`, referral.`ref`, postback.referral.`ref`) AS `ref`
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY kafka_offset) AS copy_number FROM instagram_records
)
WHERE copy_number = 1;
