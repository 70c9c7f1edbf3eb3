-- What the analytics database holds. One row of `events` for each distinct event_id: the first copy in its partition stays.
-- Everything that is counted is a view over it, by event time, so that a late event corrects what was shown before.
-- Times are UTC without a zone. A text is null when there was none, and from the moment on that its message was unsent.

CREATE TABLE about (
  name VARCHAR PRIMARY KEY,   -- layout: the version of these tables; topic_prefix: whose topics were read
  content VARCHAR NOT NULL
);

-- Written in the transaction that writes the events before them: this, and not what Kafka was told, says where to go on.
CREATE TABLE offsets (
  topic VARCHAR NOT NULL,
  kafka_partition INTEGER NOT NULL,
  next_offset BIGINT NOT NULL,
  PRIMARY KEY (topic, kafka_partition)
);

CREATE TABLE events (
  event_id UUID NOT NULL,          -- the contract's 32 digits; without an index: see docs/decisions/0006-analytics.md
  webhook_field VARCHAR NOT NULL,
  origin VARCHAR NOT NULL,         -- messaging, standby, changes or entry
  kind VARCHAR,                    -- Meta's key (message, read, …); of a change null
  account_id VARCHAR,
  customer_id VARCHAR,
  conversation UBIGINT,            -- stands for the two in joins; null without a customer
  mid_md5 UUID,                    -- MD5 of the message's id, which has some 170 characters; md5('…')::UUID finds it
  event_time TIMESTAMP NOT NULL,   -- occurred_at, and received_at where Meta gave none
  occurred_at TIMESTAMP,
  received_at TIMESTAMP NOT NULL,
  is_echo BOOLEAN NOT NULL,        -- the account wrote it
  is_deleted BOOLEAN NOT NULL,     -- this event is an unsend
  text VARCHAR,                    -- of a message, an edit or a comment
  num_edit BIGINT,
  action VARCHAR,                  -- react or unreact
  reaction VARCHAR,                -- its name, else its emoji
  attachments VARCHAR[],           -- their types
  is_story_reply BOOLEAN NOT NULL,
  payload VARCHAR,                 -- of the button that was tapped
  ad_id VARCHAR,
  ref VARCHAR,
  kafka_partition INTEGER NOT NULL,
  kafka_offset BIGINT NOT NULL
);

-- Messages whose text must not be kept, whichever of text and unsend comes first.
CREATE TABLE unsent (mid_md5 UUID NOT NULL);

-- Of so many events it is certain, against the whole file, that none is another's copy; copies that were found so late are gone.
CREATE TABLE settled AS SELECT 0::BIGINT AS events, 0::BIGINT AS removed;

-- How long after the bridge's receipt records were readable here: one row for each commit and webhook field while no
-- more is waiting in Kafka, kept for a week. About this process, not about events: a rebuild does not repeat it.
CREATE TABLE arrivals (
  read_at TIMESTAMP NOT NULL,
  webhook_field VARCHAR NOT NULL,
  records BIGINT NOT NULL,
  lag_median_s DOUBLE NOT NULL
);

-- Messages between an account and a customer: no unsends, edits, standby or dashboard tests.
CREATE VIEW direct_messages AS
SELECT * FROM events WHERE webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted;

CREATE VIEW events_by_field AS
SELECT account_id, webhook_field, date_trunc('hour', event_time) AS hour, count(*) AS events
FROM events
GROUP BY ALL;

CREATE VIEW messages_by_hour AS
SELECT account_id, date_trunc('hour', event_time) AS hour,
  count(*) FILTER (NOT is_echo) AS inbound, count(*) FILTER (is_echo) AS outbound
FROM direct_messages
GROUP BY ALL;

-- A question is the customer's first message since the last echo; the next echo answers it. Of a question and an answer with
-- the same time the question is the earlier.
CREATE VIEW questions AS
WITH turns AS (
  SELECT account_id, customer_id, conversation, event_time, is_echo,
    lag(is_echo, 1, true) OVER (PARTITION BY conversation ORDER BY event_time, is_echo) AS after_echo
  FROM direct_messages
  WHERE conversation IS NOT NULL
), changes AS (
  SELECT account_id, customer_id, event_time AS asked_at, is_echo,
    lead(event_time) OVER (PARTITION BY conversation ORDER BY event_time, is_echo) AS answered_at
  FROM turns
  WHERE is_echo <> after_echo
)
SELECT account_id, customer_id, asked_at, answered_at FROM changes WHERE NOT is_echo;

CREATE VIEW first_responses AS
SELECT account_id, customer_id, asked_at, answered_at, (epoch_ms(answered_at) - epoch_ms(asked_at)) / 1000 AS seconds
FROM questions
WHERE answered_at IS NOT NULL;
