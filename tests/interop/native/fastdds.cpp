// Listens to an image topic in C++ on Fast DDS: fastdds DOMAIN TOPIC COUNT; one line per image, with its hash.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>

#include "ImagePubSubTypes.h"

using namespace eprosima::fastdds::dds;

static uint64_t hash(const std::vector<uint8_t>& data) {  // FNV-1a
  uint64_t value = 0xcbf29ce484222325u;
  for (uint8_t byte : data) value = (value ^ byte) * 0x100000001b3u;
  return value;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  DomainParticipant* participant =
      DomainParticipantFactory::get_instance()->create_participant(std::atoi(argv[1]), PARTICIPANT_QOS_DEFAULT);
  if (participant == nullptr) return 1;
  TypeSupport type(new sensor_msgs::msg::dds_::Image_PubSubType());
  type->setName("sensor_msgs::msg::dds_::Image_");
  type.register_type(participant);
  Topic* topic = participant->create_topic(argv[2], type.get_type_name(), TOPIC_QOS_DEFAULT);
  DataReaderQos qos = DATAREADER_QOS_DEFAULT;
  qos.reliability().kind = RELIABLE_RELIABILITY_QOS;
  qos.history().kind = KEEP_LAST_HISTORY_QOS;
  qos.history().depth = 10;
  qos.endpoint().history_memory_policy = eprosima::fastrtps::rtps::PREALLOCATED_WITH_REALLOC_MEMORY_MODE;
  DataReader* reader = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT)->create_datareader(topic, qos);
  if (reader == nullptr) return 1;
  std::puts("ready");
  std::fflush(stdout);
  for (int left = std::atoi(argv[3]); left > 0;) {
    sensor_msgs::msg::dds_::Image_ image;
    SampleInfo info;
    reader->wait_for_unread_message({1, 0});
    if (reader->take_next_sample(&image, &info) != ReturnCode_t::RETCODE_OK || !info.valid_data) continue;
    std::printf("%s %" PRId32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %s %u %" PRIu32 " %zu %016" PRIx64 "\n",
                image.header().frame_id().c_str(), image.header().stamp().sec(), image.header().stamp().nanosec(),
                image.width(), image.height(), image.encoding().c_str(), unsigned(image.is_bigendian()), image.step(),
                image.data().size(), hash(image.data()));
    std::fflush(stdout);
    --left;
  }
  std::_Exit(0);
}
