use std::ops::Range; use tidegate_core::limits::GuestLimits; use tidegate_core::state_schema::*;
pub type Slot=u32; #[derive(Debug,Clone,Copy,PartialEq,Eq)] pub struct StateId(pub u16);
#[derive(Debug,Clone,Copy)] pub struct CallTime{pub watermark:i64,pub processing_time:i64}
#[derive(Debug,Clone,Default)] pub struct Column{pub data:Vec<u8>,pub offsets:Vec<u32>}
#[derive(Debug,thiserror::Error)] #[error("x")] pub struct StateError; #[derive(Debug,thiserror::Error)] #[error("x")] pub struct SegmentError;
pub struct FrozenState; pub struct Segment{pub bytes:Vec<u8>,pub entries:u64,pub full:bool,pub first_group:u32,pub end_group:u32,pub crc32c:u32}
impl FrozenState{pub fn is_empty(&self)->bool{todo!()} pub fn write_segment(self)->Segment{todo!()}}
pub struct DueTimers{pub slots:Vec<u32>,pub times:Vec<i64>,pub tags:Vec<u64>}
pub struct KeyedState; type R<T>=Result<T,StateError>;
pub fn merge_segments(_:&[&[u8]],_:bool)->Result<Segment,SegmentError>{todo!()}
#[allow(unused)]
impl KeyedState{
pub fn new(d:&[StateDeclaration],g:u32,o:Range<u32>,l:&GuestLimits)->Self{todo!()}
pub fn state_id(&self,n:&str)->Option<(StateId,StateKind)>{todo!()}
pub fn begin_batch(&mut self,r:&[u8],c:u32,n:CallTime){todo!()} pub fn begin_key(&mut self,k:&[u8],n:CallTime){todo!()}
pub fn begin_timers(&mut self,d:TimeDomain,u:i64,m:usize,n:CallTime)->bool{todo!()}
pub fn slots(&self)->&[u32]{todo!()} pub fn key_count(&self)->u32{todo!()} pub fn key(&self,s:u32)->&[u8]{todo!()} pub fn due(&self)->&DueTimers{todo!()}
pub fn commit(&mut self){todo!()} pub fn rollback(&mut self){todo!()}
pub fn value_get(&mut self,s:StateId,k:u32)->R<Option<&[u8]>>{todo!()} pub fn value_put(&mut self,s:StateId,k:u32,v:&[u8])->R<()>{todo!()} pub fn value_clear(&mut self,s:StateId,k:u32)->R<()>{todo!()}
pub fn value_load(&mut self,s:StateId)->R<Column>{todo!()} pub fn value_store(&mut self,s:StateId,k:&[u32],v:&Column)->R<()>{todo!()}
pub fn value_load_fixed(&mut self,s:StateId)->R<Vec<u8>>{todo!()} pub fn value_store_fixed(&mut self,s:StateId,k:&[u32],v:&[u8])->R<()>{todo!()} pub fn value_store_all_fixed(&mut self,s:StateId,v:&[u8])->R<()>{todo!()}
pub fn map_get(&mut self,s:StateId,k:u32,m:&[u8])->R<Option<&[u8]>>{todo!()} pub fn map_put(&mut self,s:StateId,k:u32,m:&[u8],v:&[u8])->R<()>{todo!()} pub fn map_remove(&mut self,s:StateId,k:u32,m:&[u8])->R<()>{todo!()} pub fn map_contains(&mut self,s:StateId,k:u32,m:&[u8])->R<bool>{todo!()} pub fn map_is_empty(&mut self,s:StateId,k:u32)->R<bool>{todo!()}
pub fn map_scan(&mut self,s:StateId,k:u32,a:Option<&[u8]>,b:Option<&[u8]>,l:u32)->R<Vec<u8>>{todo!()} pub fn map_remove_range(&mut self,s:StateId,k:u32,a:Option<&[u8]>,b:Option<&[u8]>)->R<()>{todo!()} pub fn map_clear(&mut self,s:StateId,k:u32)->R<()>{todo!()}
pub fn map_load_many(&mut self,s:StateId,k:&[u32],m:&Column)->R<Column>{todo!()} pub fn map_store_many(&mut self,s:StateId,k:&[u32],m:&Column,v:&Column)->R<()>{todo!()}
pub fn list_add(&mut self,s:StateId,k:u32,v:&[u8])->R<()>{todo!()} pub fn list_get(&mut self,s:StateId,k:u32,f:u32,l:u32)->R<Column>{todo!()} pub fn list_length(&mut self,s:StateId,k:u32)->R<u32>{todo!()} pub fn list_replace(&mut self,s:StateId,k:u32,v:&Column)->R<()>{todo!()} pub fn list_clear(&mut self,s:StateId,k:u32)->R<()>{todo!()} pub fn list_add_many(&mut self,s:StateId,k:&[u32],v:&Column)->R<()>{todo!()}
pub fn reducing_add(&mut self,s:StateId,k:u32,v:i64)->R<()>{todo!()} pub fn reducing_get(&mut self,s:StateId,k:u32)->R<Option<i64>>{todo!()} pub fn reducing_clear(&mut self,s:StateId,k:u32)->R<()>{todo!()} pub fn reducing_add_many(&mut self,s:StateId,k:&[u32],v:&[i64],r:bool)->R<Vec<i64>>{todo!()} pub fn reducing_load(&mut self,s:StateId)->R<Vec<i64>>{todo!()}
pub fn set_timer(&mut self,k:u32,d:TimeDomain,t:i64,g:u64)->R<()>{todo!()} pub fn cancel_timer(&mut self,k:u32,d:TimeDomain,t:i64,g:u64)->R<()>{todo!()} pub fn set_timers(&mut self,d:TimeDomain,k:&[u32],t:&[i64],g:&[u64])->R<()>{todo!()} pub fn cancel_timers(&mut self,d:TimeDomain,k:&[u32],t:&[i64],g:&[u64])->R<()>{todo!()} pub fn next_timer(&self,d:TimeDomain)->Option<i64>{todo!()} pub fn timer_count(&self,d:TimeDomain)->usize{todo!()}
pub fn freeze(&mut self,f:bool){todo!()} pub fn is_draining(&self)->bool{todo!()} pub fn drain(&mut self,b:usize)->Option<FrozenState>{todo!()} pub fn dirty_entries(&self)->usize{todo!()} pub fn live_entries(&self)->usize{todo!()} pub fn bytes(&self)->usize{todo!()} pub fn sweep(&mut self,b:usize,n:CallTime){todo!()} pub fn restore(&mut self,s:&[u8])->Result<(),SegmentError>{todo!()}
}
