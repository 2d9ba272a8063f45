/* Listens to an image topic in C on Cyclone DDS: cyclonedds DOMAIN TOPIC COUNT; one line per image, with its hash. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "Image.h"
#include "dds/dds.h"

static uint64_t hash(const uint8_t *data, size_t size) { /* FNV-1a */
  uint64_t value = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; ++i) value = (value ^ data[i]) * 0x100000001b3u;
  return value;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  dds_entity_t participant = dds_create_participant((dds_domainid_t)atoi(argv[1]), NULL, NULL);
  dds_entity_t topic = dds_create_topic(participant, &sensor_msgs_msg_dds__Image__desc, argv[2], NULL, NULL);
  dds_qos_t *qos = dds_create_qos();
  dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(1));
  dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 10);
  dds_entity_t reader = dds_create_reader(participant, topic, qos, NULL);
  if (reader < 0) {
    fprintf(stderr, "no reader: %s\n", dds_strretcode(-reader));
    return 1;
  }
  puts("ready");
  fflush(stdout);
  for (int left = atoi(argv[3]); left > 0;) {
    void *sample = NULL;
    dds_sample_info_t info;
    if (dds_take(reader, &sample, &info, 1, 1) < 1) {
      dds_sleepfor(DDS_MSECS(2));
      continue;
    }
    if (info.valid_data) {
      const sensor_msgs_msg_dds__Image_ *image = sample;
      printf("%s %" PRId32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %s %u %" PRIu32 " %" PRIu32 " %016" PRIx64 "\n",
             image->header.frame_id, image->header.stamp.sec, image->header.stamp.nanosec, image->width, image->height,
             image->encoding, image->is_bigendian, image->step, image->data._length,
             hash(image->data._buffer, image->data._length));
      fflush(stdout);
      --left;
    }
    dds_return_loan(reader, &sample, 1);
  }
  dds_delete(participant);
  return 0;
}
